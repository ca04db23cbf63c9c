//! The node daemon of Margay as a library: what the binary `margay` is made of.
//!
//! [`datastore`] watches feed one [`view`] of the cluster; [`reconcile`] turns it into desired
//! values of the speaker and of the kernel's routes; each edge ([`routing`] with the dataplane crate,
//! [`enforcement`] with the policy crate, the BGP crate's speaker, [`addresses`] with the ipam
//! crate) applies only what differs. [`cni_server`] and [`pods`] give pods their wiring, and
//! [`node_loop`] drives it all; [`run`] puts it together. [`controller`] is a program of its own:
//! what is done once for the cluster and not on each node. [`host`] and [`cluster`] are what is done
//! before and after: installing on a node and taking everything away.

pub mod addresses;
pub mod admin;
pub mod cluster;
pub mod cni_server;
pub mod controller;
pub mod datastore;
mod drain;
pub mod endpoints;
pub mod enforcement;
pub mod health;
pub mod host;
pub mod node_condition;
pub mod node_loop;
pub mod notes;
pub mod options;
pub mod pods;
pub mod reconcile;
pub mod routing;
pub mod run;
pub mod secrets;
pub mod services;
mod settling;
pub mod status;
pub mod tunnel_addresses;
pub mod view;
