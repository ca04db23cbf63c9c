//! What is written on a pod and its namespace about addresses: pools, fixed addresses, families.
//!
//! | Margay | Calico | value |
//! |---|---|---|
//! | `margay.dev/ip-addresses` | `cni.projectcalico.org/ipAddrs` | at most one address a family |
//! | `margay.dev/ipv4-pools` | `cni.projectcalico.org/ipv4pools` | IPPools by name or CIDR |
//! | `margay.dev/ipv6-pools` | `cni.projectcalico.org/ipv6pools` | IPPools by name or CIDR |
//! | `margay.dev/ip-families` | `cni.projectcalico.org/ipFamilies` | `IPv4`, `IPv6` |
//!
//! The value is a JSON list of strings as Calico has it, or, under Margay's own keys, the strings
//! with commas between them. On a pod all four count, on a namespace the pools (for pods that say
//! nothing). Of two keys for one thing Margay's own is read. A pod that names addresses gets
//! these and no other family, unless the families are named too.
//!
//! Not here: which pools there are, and who holds what ([`crate::view`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::request::{Source, Want};
use crate::{Family, IpamError};

type Annotations = BTreeMap<String, String>;

const ADDRESSES: [&str; 2] = ["margay.dev/ip-addresses", "cni.projectcalico.org/ipAddrs"];
const V4_POOLS: [&str; 2] = ["margay.dev/ipv4-pools", "cni.projectcalico.org/ipv4pools"];
const V6_POOLS: [&str; 2] = ["margay.dev/ipv6-pools", "cni.projectcalico.org/ipv6pools"];
const FAMILIES: [&str; 2] = ["margay.dev/ip-families", "cni.projectcalico.org/ipFamilies"];
/// Addresses outside address management: nobody would keep them apart.
const NO_IPAM: &str = "cni.projectcalico.org/ipAddrsNoIpam";
/// Every key that is read here.
const KEYS: [&str; 9] = [
    ADDRESSES[0],
    ADDRESSES[1],
    V4_POOLS[0],
    V4_POOLS[1],
    V6_POOLS[0],
    V6_POOLS[1],
    FAMILIES[0],
    FAMILIES[1],
    NO_IPAM,
];

/// Whether an annotation says anything about addresses: the others need not be kept.
pub fn concerns_addresses(key: &str) -> bool {
    KEYS.contains(&key)
}

/// What a pod wants, by what is written on it and on its namespace.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod's name.
    pub pod: &'a str,
    /// What is written on the pod.
    pub on_pod: &'a Annotations,
    /// What is written on the namespace.
    pub on_namespace: &'a Annotations,
}

/// A value with where it stands, in words.
struct Found {
    values: Vec<String>,
    origin: String,
}

impl Reading<'_> {
    /// The wants: one for each family that is named, for each of which an address is named, or a
    /// pool, or that is one of `usual` where no family and no address is named. IPv4 comes first.
    ///
    /// # Errors
    /// [`IpamError::Unfulfillable`] where the annotations cannot be understood or contradict each
    /// other.
    pub fn wants(&self, usual: &BTreeSet<Family>) -> Result<Vec<Want>, IpamError> {
        self.refuse_no_ipam()?;
        let addresses = self.addresses()?;
        let pools = [
            (Family::V4, self.find(V4_POOLS, true)?),
            (Family::V6, self.find(V6_POOLS, true)?),
        ];
        let families = match self.families()? {
            Some(families) => {
                self.refuse_contradiction(&families, &addresses)?;
                families
            }
            None if !addresses.is_empty() => addresses.keys().copied().collect(),
            None => {
                let named = pools.iter().filter(|(_, found)| found.is_some());
                let named = named.map(|(family, _)| *family);
                usual.iter().copied().chain(named).collect()
            }
        };
        let want = |family: Family| {
            if let Some((address, origin)) = addresses.get(&family) {
                return Want {
                    family,
                    source: Source::Address(*address),
                    origin: origin.clone(),
                };
            }
            let mut pools = pools.iter().filter(|(of, _)| *of == family);
            match pools.find_map(|(_, found)| found.as_ref()) {
                Some(found) => Want {
                    family,
                    source: Source::Pools(found.values.clone()),
                    origin: found.origin.clone(),
                },
                None => Want::automatic(family),
            }
        };
        Ok(families.into_iter().map(want).collect())
    }

    fn refuse_no_ipam(&self) -> Result<(), IpamError> {
        let Some(value) = self.on_pod.get(NO_IPAM) else {
            return Ok(());
        };
        Err(wrong(
            self.on_pod_in_words(NO_IPAM),
            value,
            "Margay gives no address that it does not keep account of: use \
             margay.dev/ip-addresses with addresses of an IPPool"
                .to_owned(),
        ))
    }

    fn addresses(&self) -> Result<BTreeMap<Family, (IpAddr, String)>, IpamError> {
        let mut addresses = BTreeMap::new();
        let Some(found) = self.find(ADDRESSES, false)? else {
            return Ok(addresses);
        };
        for text in found.values {
            let Ok(address) = text.parse::<IpAddr>() else {
                let problem = "that is no address such as 10.244.0.7 or fd00::7".to_owned();
                return Err(wrong(found.origin, &text, problem));
            };
            let family = Family::of(address);
            let entry = (address, found.origin.clone());
            if let Some((other, _)) = addresses.insert(family, entry) {
                let problem =
                    format!("it also asks for {other}, and one {family} address is given");
                return Err(wrong(found.origin, &text, problem));
            }
        }
        Ok(addresses)
    }

    fn families(&self) -> Result<Option<BTreeSet<Family>>, IpamError> {
        let Some(found) = self.find(FAMILIES, false)? else {
            return Ok(None);
        };
        let mut families = BTreeSet::new();
        for text in &found.values {
            families.insert(match text.to_ascii_lowercase().as_str() {
                "ipv4" => Family::V4,
                "ipv6" => Family::V6,
                _ => {
                    let problem = "a family is IPv4 or IPv6".to_owned();
                    return Err(wrong(found.origin, text, problem));
                }
            });
        }
        Ok(Some(families))
    }

    fn refuse_contradiction(
        &self,
        families: &BTreeSet<Family>,
        addresses: &BTreeMap<Family, (IpAddr, String)>,
    ) -> Result<(), IpamError> {
        let mut others = addresses.iter();
        let Some((family, (address, origin))) =
            others.find(|(family, _)| !families.contains(family))
        else {
            return Ok(());
        };
        let key = FAMILIES.iter().find(|key| self.on_pod.contains_key(**key));
        let problem = format!(
            "annotation {} of the same Pod does not name {family}",
            key.copied().unwrap_or_default()
        );
        Err(wrong(origin.clone(), &address.to_string(), problem))
    }

    /// The value of the first of the keys that is there, on the pod before the namespace.
    fn find(&self, keys: [&str; 2], is_for_all: bool) -> Result<Option<Found>, IpamError> {
        let get = |annotations: &Annotations| {
            let mut all = keys.iter();
            all.find_map(|key| Some(((*key).to_owned(), annotations.get(*key)?.clone())))
        };
        let on_pod = get(self.on_pod).map(|(key, value)| (self.on_pod_in_words(&key), key, value));
        let on_namespace = || {
            let (key, value) = get(self.on_namespace).filter(|_| is_for_all)?;
            let origin = format!("annotation {key} of Namespace {}", self.namespace);
            Some((origin, key, value))
        };
        let Some((origin, key, value)) = on_pod.or_else(on_namespace) else {
            return Ok(None);
        };
        let values = list(&value, key.starts_with("margay.dev/"));
        match values.filter(|values| !values.is_empty()) {
            Some(values) => Ok(Some(Found { values, origin })),
            None => {
                let problem = "that is no list such as [\"a\", \"b\"] with anything in it";
                Err(wrong(origin, &value, problem.to_owned()))
            }
        }
    }

    fn on_pod_in_words(&self, key: &str) -> String {
        format!("annotation {key} of Pod {}/{}", self.namespace, self.pod)
    }
}

/// A JSON list of strings, or strings with commas between them.
fn list(text: &str, commas: bool) -> Option<Vec<String>> {
    let text = text.trim();
    if text.starts_with('[') || !commas {
        return serde_json::from_str(text).ok();
    }
    let parts = text.split(',').map(str::trim);
    Some(
        parts
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

fn wrong(who: String, value: &str, problem: String) -> IpamError {
    // Whatever stands there is told in full only as far as it is a line.
    let wanted: String = value.chars().take(128).collect();
    IpamError::Unfulfillable {
        who,
        wanted,
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Annotations {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn read(pod: &[(&str, &str)], namespace: &[(&str, &str)]) -> Result<Vec<Want>, IpamError> {
        let (on_pod, on_namespace) = (map(pod), map(namespace));
        let reading = Reading {
            namespace: "default",
            pod: "web",
            on_pod: &on_pod,
            on_namespace: &on_namespace,
        };
        reading.wants(&[Family::V4].into())
    }

    fn sources(pod: &[(&str, &str)], namespace: &[(&str, &str)]) -> Vec<(Family, Source)> {
        let wants = read(pod, namespace).unwrap().into_iter();
        wants.map(|want| (want.family, want.source)).collect()
    }

    fn named(names: &[&str]) -> Source {
        Source::Pools(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn nothing_said_is_what_is_usual() {
        let usual = [(Family::V4, Source::Automatic)];
        assert_eq!(sources(&[], &[]), usual);
        assert_eq!(sources(&[("other", "x")], &[("other", "x")]), usual);
    }

    #[test]
    fn calicos_keys_are_understood_as_they_are() {
        let pools = [("cni.projectcalico.org/ipv4pools", r#"["a","10.0.0.0/16"]"#)];
        let expected = [(Family::V4, named(&["a", "10.0.0.0/16"]))];
        assert_eq!(sources(&pools, &[]), expected);
        assert_eq!(sources(&[], &pools), expected);
        let both = [("cni.projectcalico.org/ipFamilies", r#"["IPv6","IPv4"]"#)];
        let expected = [
            (Family::V4, Source::Automatic),
            (Family::V6, Source::Automatic),
        ];
        assert_eq!(sources(&both, &[]), expected);
        let address = [("cni.projectcalico.org/ipAddrs", r#"["fd00::7"]"#)];
        let expected = [(Family::V6, Source::Address("fd00::7".parse().unwrap()))];
        assert_eq!(sources(&address, &[]), expected);
    }

    #[test]
    fn the_pod_goes_before_its_namespace_and_our_key_before_calicos() {
        let pod = [
            ("margay.dev/ipv4-pools", "a, b"),
            ("cni.projectcalico.org/ipv4pools", r#"["c"]"#),
        ];
        let namespace = [
            ("margay.dev/ipv4-pools", "d"),
            ("margay.dev/ipv6-pools", r#"["e"]"#),
        ];
        let expected = [
            (Family::V4, named(&["a", "b"])),
            (Family::V6, named(&["e"])),
        ];
        assert_eq!(sources(&pod, &namespace), expected);
        // Fixed addresses of a whole namespace would be one address for many pods.
        let namespace = [("margay.dev/ip-addresses", "10.0.0.1")];
        assert_eq!(sources(&[], &namespace), [(Family::V4, Source::Automatic)]);
    }

    #[test]
    fn addresses_decide_the_families_unless_these_are_named() {
        let address = ("margay.dev/ip-addresses", "10.0.0.7");
        let fixed = (Family::V4, Source::Address("10.0.0.7".parse().unwrap()));
        let pools = [("margay.dev/ipv6-pools", "six")];
        assert_eq!(sources(&[address], &pools), std::slice::from_ref(&fixed));
        let pod = [address, ("margay.dev/ip-families", "IPv4,IPv6")];
        assert_eq!(
            sources(&pod, &pools),
            [fixed, (Family::V6, named(&["six"]))]
        );
    }

    #[test]
    fn mistakes_name_the_annotation_and_the_way_out() {
        let cases: [(&[(&str, &str)], &str); 9] = [
            (
                &[("cni.projectcalico.org/ipAddrsNoIpam", r#"["10.9.9.9"]"#)],
                "annotation cni.projectcalico.org/ipAddrsNoIpam of Pod default/web asks for \
                 [\"10.9.9.9\"], but Margay gives no address that it does not keep account of: use \
                 margay.dev/ip-addresses with addresses of an IPPool",
            ),
            (
                &[("margay.dev/ip-addresses", "10.0.0")],
                "annotation margay.dev/ip-addresses of Pod default/web asks for 10.0.0, but that \
                 is no address such as 10.244.0.7 or fd00::7",
            ),
            (
                &[("margay.dev/ip-addresses", "10.0.0.1,10.0.0.2")],
                "it also asks for 10.0.0.1",
            ),
            (
                &[("cni.projectcalico.org/ipv4pools", "a")],
                "asks for a, but that is no list",
            ),
            (&[("cni.projectcalico.org/ipv4pools", "[]")], "no list"),
            (&[("margay.dev/ipv6-pools", " ")], "no list"),
            (&[("margay.dev/ipv6-pools", "[1]")], "no list"),
            (
                &[("margay.dev/ip-families", "IPv5")],
                "asks for IPv5, but a family is IPv4 or IPv6",
            ),
            (
                &[
                    ("margay.dev/ip-addresses", "10.0.0.1"),
                    ("margay.dev/ip-families", "IPv6"),
                ],
                "annotation margay.dev/ip-addresses of Pod default/web asks for 10.0.0.1, but \
                 annotation margay.dev/ip-families of the same Pod does not name IPv4",
            ),
        ];
        for (pod, expected) in cases {
            let error = read(pod, &[]).unwrap_err();
            assert!(error.is_request_wrong() && !error.is_transient());
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
