//! The error object of the specification (section "Error").

use std::fmt;

use serde::{Deserialize, Serialize};

/// The codes that the specification gives, and those of Margay from 100 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

impl Code {
    /// The version of the specification is not supported.
    pub const INCOMPATIBLE_VERSION: Code = Code(1);
    /// A field of the network configuration is not supported; the message has key and value.
    pub const UNSUPPORTED_FIELD: Code = Code(2);
    /// The container is not known: the runtime need not clean up.
    pub const UNKNOWN_CONTAINER: Code = Code(3);
    /// An environment variable is wrong or missing; the message has its name.
    pub const INVALID_ENVIRONMENT: Code = Code(4);
    /// Reading or writing failed.
    pub const IO: Code = Code(5);
    /// The input is not JSON, or not what it should be.
    pub const DECODE: Code = Code(6);
    /// The network configuration is wrong.
    pub const INVALID_CONFIG: Code = Code(7);
    /// Nothing is wrong for good: the runtime should try again later.
    pub const TRY_AGAIN: Code = Code(11);
    /// STATUS: the plugin cannot serve ADD.
    pub const NOT_AVAILABLE: Code = Code(50);
    /// STATUS: the plugin cannot serve ADD, and existing containers may lack connectivity.
    pub const LIMITED_CONNECTIVITY: Code = Code(51);
    /// The agent could not make the pod's interface; everything was undone.
    pub const WIRING: Code = Code(100);
    /// CHECK: what is there is not what was made.
    pub const CHECK_FAILED: Code = Code(101);
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniError {
    /// The kind.
    pub code: Code,
    /// A short message.
    pub msg: String,
    /// More, for the person who reads it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// The same error with details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code.0)?;
        if self.details.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.details)
    }
}

impl std::error::Error for CniError {}
