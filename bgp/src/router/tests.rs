//! Scenarios: two or more routers in virtual time.

mod routes;
mod sessions;
