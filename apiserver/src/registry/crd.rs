//! From a CRD object to the resources it describes, one per served version.

use serde_json::Value;

use super::{Custom, Model, Resource};
use crate::object::{at, text};
use crate::schema::Schema;
use crate::table::PrinterColumn;

/// The resources a CRD describes.
///
/// # Errors
/// The first thing that cannot be served, with its place.
pub fn compile(definition: &Value) -> Result<Vec<Resource>, String> {
    let versions = at(definition, &["spec", "versions"])
        .and_then(Value::as_array)
        .ok_or("spec.versions: required")?;
    versions
        .iter()
        .filter(|version| {
            version
                .get("served")
                .and_then(Value::as_bool)
                .unwrap_or(false)
        })
        .map(|version| compile_version(definition, version))
        .collect()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn compile_version(definition: &Value, version: &Value) -> Result<Resource, String> {
    let name = |key: &str| text(definition, &["spec", "names", key]).to_owned();
    let (group, plural, kind) = (
        text(definition, &["spec", "group"]).to_owned(),
        name("plural"),
        name("kind"),
    );
    let or = |given: String, otherwise: String| if given.is_empty() { otherwise } else { given };
    let source = at(version, &["schema", "openAPIV3Schema"])
        .cloned()
        .unwrap_or_default();
    let schema = if source.is_object() {
        Schema::compile(&source)?
    } else {
        Schema::anything()
    };
    let columns = version
        .get("additionalPrinterColumns")
        .and_then(Value::as_array);
    let columns = match columns {
        Some(list) if !list.is_empty() => list
            .iter()
            .map(PrinterColumn::parse)
            .collect::<Result<_, _>>()?,
        _ => vec![PrinterColumn::age()],
    };
    let selectable = version
        .get("selectableFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let selectable = selectable
        .map(|each| text(each, &["jsonPath"]).trim_start_matches('.').to_owned())
        .collect();
    Ok(Resource {
        version: text(version, &["name"]).to_owned(),
        list_kind: or(name("listKind"), format!("{kind}List")),
        singular: or(name("singular"), kind.to_ascii_lowercase()),
        short_names: strings(at(definition, &["spec", "names", "shortNames"])),
        categories: strings(at(definition, &["spec", "names", "categories"])),
        namespaced: text(definition, &["spec", "scope"]) == "Namespaced",
        status: at(version, &["subresources", "status"]).is_some(),
        shelf: format!("{plural}.{group}"),
        model: Model::Custom(Box::new(Custom {
            schema,
            source,
            columns,
            selectable,
        })),
        group,
        plural,
        kind,
    })
}
