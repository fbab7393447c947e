//! A world of invented alphabets, the embedded stand-in for Omniglot.
//!
//! After the generative account of Lake et al. 2015 (Bayesian program learning), much simplified: an alphabet is a
//! style and a small library of pen movements; a character is a few of those movements, each attached to an earlier
//! one or placed freely; a drawing is a character written again by another hand. All of it is drawn from numbers: world
//! seed, alphabet, character and drawing give the picture.
//!
//! The hands' noise is set so that the world is as hard as Omniglot for a learner without ideas: five-way one-shot accuracy of
//! the nearest neighbour in pixels is 0.44 on either, with five shots 0.65 (`tests/worlds.rs`).

mod alphabet;
mod part;

pub use alphabet::{Alphabet, Character};

use metaforge_autodiff::Key;

use crate::{Classes, Split};

/// Characters of an alphabet (Omniglot's have 14 to 55, 32 on average).
pub const CHARACTERS: usize = 32;

/// How many alphabets each part of the world has when nothing else is said; "endless" for any training run.
pub const ALPHABETS: usize = 1 << 20;

/// How many drawings each character has when nothing else is said.
pub const DRAWINGS: usize = 1 << 20;

/// The characters of one part of a world as classes; every drawing is made when it is asked for.
///
/// Class `c` is character `c % CHARACTERS` of the part's alphabet `c / CHARACTERS`. The world's alphabet `3 k` is training, `3 k + 1`
/// validation, `3 k + 2` test, so the parts share no alphabet.
#[derive(Clone, Debug)]
pub struct Glyphs {
    world: Key,
    split: Split,
    alphabets: usize,
    size: usize,
    drawings: usize,
}

impl Glyphs {
    /// One part of the world of `seed`, 28x28, with [`ALPHABETS`] alphabets and [`DRAWINGS`] drawings a character.
    pub fn new(seed: u64, split: Split) -> Self {
        Glyphs { world: Key::new(seed), split, alphabets: ALPHABETS, size: 28, drawings: DRAWINGS }
    }

    /// The same with that many alphabets only (for a world as small as Omniglot: 50).
    pub fn alphabets(mut self, alphabets: usize) -> Self {
        self.alphabets = alphabets;
        self
    }

    /// The same with that many drawings a character only (Omniglot has 20).
    pub fn drawings(mut self, drawings: usize) -> Self {
        self.drawings = drawings;
        self
    }

    /// The same drawn `size` x `size`.
    pub fn size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// The character behind a class.
    pub fn character(&self, class: usize) -> Character {
        let alphabet = self.split.deal(class / CHARACTERS) as u64;
        Alphabet::new(self.world, alphabet).character((class % CHARACTERS) as u64)
    }
}

impl Classes for Glyphs {
    fn classes(&self) -> usize {
        self.alphabets * CHARACTERS
    }

    fn class_name(&self, class: usize) -> String {
        format!("{} alphabet {} character {}", self.split.name(), class / CHARACTERS, class % CHARACTERS)
    }

    fn images(&self, _class: usize) -> usize {
        self.drawings
    }

    fn image_shape(&self) -> [usize; 3] {
        [self.size, self.size, 1]
    }

    fn read(&self, class: usize, picks: &[usize], out: &mut [f32]) {
        let character = self.character(class);
        for (&pick, out) in picks.iter().zip(out.chunks_exact_mut(self.size * self.size)) {
            character.draw(pick as u64, out, self.size);
        }
    }
}
