//! [`RefusalCounts`]: how often routes were refused, by reason.

use serde::{Serialize, Serializer};

use super::Refusal;

/// How often routes were refused, by reason. In JSON an object with the reasons that occurred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefusalCounts([u64; Refusal::ALL.len()]);

impl RefusalCounts {
    /// Counts one.
    pub fn add(&mut self, refusal: Refusal) {
        if let Some(count) = self.0.get_mut(refusal as usize) {
            *count += 1;
        }
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    /// How often it was this reason.
    #[must_use]
    pub fn get(&self, refusal: Refusal) -> u64 {
        self.0.get(refusal as usize).copied().unwrap_or(0)
    }

    /// The reasons that occurred, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        let all = Refusal::ALL.into_iter().zip(self.0);
        all.filter(|(_, count)| *count > 0)
    }
}

impl Serialize for RefusalCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_what_occurred() {
        let mut counts = RefusalCounts::default();
        counts.add(Refusal::AsLoop);
        counts.add(Refusal::AsLoop);
        let mut more = RefusalCounts::default();
        more.add(Refusal::Filter);
        counts.merge(&more);
        assert_eq!(counts.get(Refusal::AsLoop), 2);
        let text = serde_json::to_string(&counts).unwrap();
        assert_eq!(text, r#"{"filter":1,"as loop":2}"#);
    }
}
