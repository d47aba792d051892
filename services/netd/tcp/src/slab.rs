//! Places with generations: a number that was given out once never names what took the place later.
//!
//! Owns the vector and the list of free places. Called by `engine`.

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// A vector of places.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Slab { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len().saturating_sub(self.free.len())
    }

    /// Puts a value in a free place; answers its index and generation.
    pub(crate) fn insert(&mut self, value: T) -> (u32, u32) {
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.value = Some(value);
            return (index, place.generation);
        }
        let index = self.places.len() as u32;
        self.places.push(Place { generation: 0, value: Some(value) });
        (index, 0)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.value.as_mut()
    }

    /// Whether the place still has the value that had this generation.
    pub(crate) fn is(&self, index: u32, generation: u32) -> bool {
        self.places.get(index as usize).is_some_and(|p| p.generation == generation && p.value.is_some())
    }

    pub(crate) fn generation(&self, index: u32) -> u32 {
        self.places.get(index as usize).map_or(0, |p| p.generation)
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let place = self.places.get_mut(index as usize)?;
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_with_another_generation() {
        let mut slab = Slab::new();
        let (index, generation) = slab.insert(1);
        assert!(slab.is(index, generation));
        assert_eq!(slab.remove(index), Some(1));
        assert!(!slab.is(index, generation));
        let (again, newer) = slab.insert(2);
        assert_eq!(again, index);
        assert_ne!(newer, generation);
        assert!(slab.is(again, newer) && !slab.is(index, generation));
        assert_eq!(slab.len(), 1);
    }
}
