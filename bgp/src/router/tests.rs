//! Scenarios: two or more routers in virtual time.

mod chaos;
mod deferral;
mod limits;
mod policy;
mod restart;
mod routes;
mod sessions;
