//! [`Slab`]: values under small numbers that are used again.

/// Values under small numbers that are used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T: Default> Slab<T> {
    /// Keeps a value and returns its number.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop()
            && let Some(place) = self.places.get_mut(number as usize)
        {
            *place = value;
            return number;
        }
        let number = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push(value);
        number
    }

    /// The value of a number in use; of one that is not, a default one or none.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.places.get(number as usize)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.places.get_mut(number as usize)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Takes the value out. The number must be in use.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let value = std::mem::take(self.places.get_mut(number as usize)?);
        self.free.push(number);
        Some(value)
    }
}
