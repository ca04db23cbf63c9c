//! Margay's embedded store: the part of the Kubernetes API that Margay, kubectl and Kubernetes clients need, over one database
//! file, so that a laptop, a lab or a few hosts without Kubernetes use the very code path a real cluster uses.
//!
//! * [`Options`] and [`run`]: what `margay apiserver` is made of.
//! * [`ServerBuilder`] and [`Server`]: the same, to embed in a test or another program.
//! * [`Validator`]: semantic checks of custom resources from outside.
//!
//! Inside: [`store`] (objects, history, the redb file), [`registry`] (which kinds there are and their rules), [`schema`] (CRD
//! schemas), [`object`] (metadata and patches), [`selector`], [`table`], [`service`] (the verbs, without HTTP) and [`http`].
//! All but `store`'s file, `service` and `http` are pure functions over JSON values.
//!
//! What this is not: a scheduler, a garbage collector for owner references, an allocator of service addresses, an engine for CEL
//! rules or admission webhooks, or highly available. For those there is Kubernetes.

pub mod auth;
pub mod error;
pub mod http;
pub mod object;
pub mod options;
pub mod registry;
pub mod schema;
pub mod selector;
pub mod server;
pub mod service;
pub mod store;
pub mod table;

pub use error::{FieldError, FieldErrorKind};
pub use options::{ListenAddress, Options};
pub use server::{Server, ServerBuilder, StartError, run};
pub use service::{GroupVersionKind, Validator};
