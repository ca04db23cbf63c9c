//! Scenarios: two or more routers in virtual time.

mod chaos;
mod deferral;
mod dynamic;
mod entries;
mod limits;
mod long_lived;
mod observed;
mod outbound;
mod policy;
mod refresh;
mod refused;
mod restart;
mod routes;
mod sessions;
mod ways;
