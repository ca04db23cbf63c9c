//! Scenarios: two or more routers in virtual time.

mod chaos;
mod restart;
mod routes;
mod sessions;
