//! Which resources there are: the built-in ones and those of every installed CRD. Descriptors and rules only; no storage.

pub mod builtin;
pub mod crd;
pub mod decode;
pub mod defaults;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use self::builtin::Builtin;
use crate::error::{FieldError, Subject};
use crate::object::names::NameRule;
use crate::object::patch::lists::{BuiltinRules, ListRules};
use crate::object::root;
use crate::schema::Schema;
use crate::table::PrinterColumn;

/// The shelf CRDs themselves are stored on.
pub const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// The shelf of namespaces.
pub const NAMESPACES: &str = "namespaces";

/// One served resource in one version.
#[derive(Debug)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Kind of one object.
    pub kind: String,
    /// Kind of a list of them.
    pub list_kind: String,
    /// Plural name, as in URLs.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories for kubectl, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether there is a `/status` subresource.
    pub status: bool,
    /// The shelf objects are stored on; several versions of a resource share it.
    pub shelf: String,
    /// Where its rules come from.
    pub model: Model,
}

/// Where a resource's rules come from.
#[derive(Debug)]
pub enum Model {
    /// A kind this crate knows.
    Builtin(&'static Builtin),
    /// A kind described by a CRD.
    Custom(Box<Custom>),
}

/// What a CRD version says beyond names.
#[derive(Debug)]
pub struct Custom {
    /// The compiled schema.
    pub schema: Schema,
    /// The schema as written, for OpenAPI.
    pub source: Value,
    /// Printer columns beside the name.
    pub columns: Vec<PrinterColumn>,
    /// Fields selectors may use beside name and namespace.
    pub selectable: Vec<String>,
}

/// An object after decoding: known fields only, and which ones were dropped.
#[derive(Debug)]
pub struct Decoded {
    /// The object.
    pub object: Value,
    /// Paths of fields nobody knows.
    pub unknown: Vec<String>,
}

impl Resource {
    /// `group/version`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The names an error about the object `name` carries.
    pub fn subject(&self, name: &str) -> Subject {
        Subject {
            group: self.group.clone(),
            resource: self.plural.clone(),
            kind: self.kind.clone(),
            name: name.to_owned(),
        }
    }

    /// The rule for `metadata.name`.
    pub fn name_rule(&self) -> NameRule {
        match &self.model {
            Model::Builtin(builtin) => builtin.name_rule,
            Model::Custom(_) => NameRule::Subdomain,
        }
    }

    /// Whether a field selector may use `field`.
    pub fn selectable(&self, field: &str) -> bool {
        if field == "metadata.name" || (field == "metadata.namespace" && self.namespaced) {
            return true;
        }
        match &self.model {
            Model::Builtin(builtin) => builtin.fields.contains(&field),
            Model::Custom(custom) => custom.selectable.iter().any(|each| each == field),
        }
    }

    /// Brings a client's object into the stored form: type checked, unknown fields dropped.
    ///
    /// # Errors
    /// A sentence with the path of the field whose type is wrong.
    pub fn decode(&self, mut object: Value) -> Result<Decoded, String> {
        let map = root(&mut object);
        map.insert("apiVersion".into(), json!(self.api_version()));
        map.insert("kind".into(), json!(self.kind));
        match &self.model {
            Model::Builtin(builtin) => {
                let mut decoded = decode::builtin(object, builtin)?;
                builtin.rename(&mut decoded.object, false);
                Ok(decoded)
            }
            Model::Custom(custom) => decode::custom(object, &custom.schema),
        }
    }

    /// A stored object as this version shows it.
    pub fn serve(&self, stored: &Value) -> Value {
        let mut object = stored.clone();
        let map = root(&mut object);
        map.insert("apiVersion".into(), json!(self.api_version()));
        map.insert("kind".into(), json!(self.kind));
        if let Model::Builtin(builtin) = &self.model {
            builtin.rename(&mut object, true);
        }
        object
    }

    /// Fills in defaults and the fields the server decides.
    pub fn prepare(&self, object: &mut Value, old: Option<&Value>, now: Timestamp) {
        match &self.model {
            Model::Builtin(builtin) => (builtin.prepare)(object, old, now),
            Model::Custom(custom) => crate::schema::default::fill(object, &custom.schema),
        }
    }

    /// Every field that is wrong.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        match &self.model {
            Model::Builtin(builtin) => (builtin.validate)(object, old),
            Model::Custom(custom) => crate::schema::validate::validate(object, &custom.schema),
        }
    }

    /// How lists merge under apply and strategic merge patch.
    pub fn list_rules(&self) -> &dyn ListRules {
        match &self.model {
            Model::Builtin(_) => &BuiltinRules,
            Model::Custom(custom) => &custom.schema,
        }
    }

    /// Whether the kind is built in (and so takes strategic merge patches).
    pub fn is_builtin(&self) -> bool {
        matches!(self.model, Model::Builtin(_))
    }
}

/// All served resources at one moment.
#[derive(Debug, Default)]
pub struct Registry {
    /// By group, version and plural.
    resources: BTreeMap<(String, String, String), Arc<Resource>>,
    /// The resourceVersion of the CRDs this was made from.
    pub(crate) made_from: u64,
}

impl Registry {
    /// The built-in resources and those of `crds` (stored CRD objects, as of version `made_from`).
    pub fn build<'a>(crds: impl Iterator<Item = &'a Value>, made_from: u64) -> Self {
        let mut registry = Self {
            resources: BTreeMap::new(),
            made_from,
        };
        for builtin in builtin::ALL {
            registry.insert(builtin.resource());
        }
        for definition in crds {
            match crd::compile(definition) {
                Ok(resources) => resources
                    .into_iter()
                    .for_each(|resource| registry.insert(resource)),
                // Refused at the door; only a store written by another version can hold one.
                Err(problem) => {
                    tracing::warn!(name = crate::object::name(definition), %problem, "a stored CRD cannot be served");
                }
            }
        }
        registry
    }

    fn insert(&mut self, resource: Resource) {
        let key = (
            resource.group.clone(),
            resource.version.clone(),
            resource.plural.clone(),
        );
        self.resources
            .entry(key)
            .or_insert_with(|| Arc::new(resource));
    }

    /// One resource.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
            .cloned()
    }

    /// The resource whose objects are stored on `shelf`, in any version.
    pub fn by_shelf(&self, shelf: &str) -> Option<Arc<Resource>> {
        self.resources
            .values()
            .find(|resource| resource.shelf == shelf)
            .cloned()
    }

    /// All resources, ordered by group, version and plural.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// Groups with their versions, the core group left out.
    pub fn groups(&self) -> BTreeMap<String, Vec<String>> {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (group, version, _) in self
            .resources
            .keys()
            .filter(|(group, ..)| !group.is_empty())
        {
            let versions = groups.entry(group.clone()).or_default();
            if !versions.contains(version) {
                versions.push(version.clone());
            }
        }
        groups
            .values_mut()
            .for_each(|versions| versions.sort_by_key(|v| std::cmp::Reverse(priority(v))));
        groups
    }
}

/// Kubernetes' order of versions: GA before beta before alpha, newer before older.
fn priority(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().ok();
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    for (word, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some((major, minor)) = rest.split_once(word)
            && let (Some(major), Some(minor)) = (number(major), number(minor))
        {
            return (rank, major, minor);
        }
    }
    number(rest).map_or((0, 0, 0), |major| (3, major, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_does() {
        let mut versions = ["v1alpha2", "v2", "foo", "v1beta1", "v1", "v10"];
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta1", "v1alpha2", "foo"]);
    }

    #[test]
    fn every_builtin_is_found_and_has_a_shelf_of_its_own_or_shares_on_purpose() {
        let registry = Registry::build(std::iter::empty(), 0);
        assert!(registry.find("", "v1", "pods").is_some());
        assert!(
            registry
                .find("networking.k8s.io", "v1", "networkpolicies")
                .is_some()
        );
        let core = registry.find("", "v1", "events").unwrap();
        let new = registry.find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(core.shelf, new.shelf);
        assert_eq!(registry.all().count(), builtin::ALL.len());
    }
}
