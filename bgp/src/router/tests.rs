//! Scenarios: two or more routers in virtual time.

mod chaos;
mod routes;
mod sessions;
