//! IPAMConfiguration: the singleton `default` with what holds for all pools.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::field::{Errors, FieldError};

/// What people write.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "IPAMConfiguration",
    plural = "ipamconfigurations",
    shortname = "ipamconfig",
    category = "margay",
    derive = "PartialEq",
    printcolumn(name = "MaxBlocksPerHost", type_ = "integer", json_path = ".spec.maxBlocksPerHost"),
    printcolumn(name = "Cooldown", type_ = "integer", json_path = ".spec.ipCooldownSeconds"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == 'default'")
        .message("there is one IPAMConfiguration: name it default")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.autoAllocateBlocks || self.strictAffinity")
        .message("autoAllocateBlocks: false needs strictAffinity: true")
)]
pub struct IPAMConfigurationSpec {
    /// Whether a node gives addresses of its own blocks only. Otherwise a node that can claim no
    /// block borrows addresses of other nodes' blocks, and announces each of them.
    #[serde(default)]
    pub strict_affinity: bool,

    /// Whether nodes claim blocks by themselves.
    #[serde(default = "yes")]
    pub auto_allocate_blocks: bool,

    /// How many blocks a node may hold; 0 is no limit.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub max_blocks_per_host: u32,

    /// Seconds for which a released address is not given again.
    #[serde(default)]
    #[schemars(range(max = 1200))]
    pub ip_cooldown_seconds: u32,
}

fn yes() -> bool {
    true
}

/// The settings that passed every check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpamSettings {
    /// Whether a node gives addresses of its own blocks only.
    pub strict_affinity: bool,
    /// Whether nodes claim blocks by themselves.
    pub auto_allocate_blocks: bool,
    /// How many blocks a node may hold, if there is a limit.
    pub max_blocks_per_host: Option<u32>,
    /// How long a released address rests, in seconds.
    pub cooldown_seconds: u32,
}

/// What holds where there is no IPAMConfiguration.
impl Default for IpamSettings {
    fn default() -> Self {
        Self {
            strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: None,
            cooldown_seconds: 0,
        }
    }
}

impl IPAMConfiguration {
    /// The typed settings, or every field that is wrong.
    pub fn check(&self) -> Result<IpamSettings, Vec<FieldError>> {
        let mut errors = Errors::default();
        if self.metadata.name.as_deref() != Some(crate::DEFAULT_NAME) {
            errors.push(FieldError::invalid(
                "metadata.name",
                &self.metadata.name,
                "there is one IPAMConfiguration: name it default",
            ));
        }
        if self.spec.ip_cooldown_seconds > 1200 {
            errors.push(FieldError::invalid(
                "spec.ipCooldownSeconds",
                self.spec.ip_cooldown_seconds,
                "must be at most 1200",
            ));
        }
        let limit = self.spec.max_blocks_per_host;
        let strict_affinity = self.spec.strict_affinity;
        let auto_allocate_blocks = self.spec.auto_allocate_blocks;
        if !auto_allocate_blocks && !strict_affinity {
            errors.push(FieldError::invalid(
                "spec.autoAllocateBlocks",
                false,
                "needs strictAffinity: true: a node without a block of its own would live on \
                 borrowed addresses",
            ));
        }
        errors.finish(Some(IpamSettings {
            strict_affinity,
            auto_allocate_blocks,
            max_blocks_per_host: (limit > 0).then_some(limit),
            cooldown_seconds: self.spec.ip_cooldown_seconds,
        }))
    }
}
