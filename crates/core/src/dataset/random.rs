//! A counter-based random generator: every number is a function of key and counter, so can be
//! recomputed alone.

/// The odd constant of SplitMix64 (Steele, Lea and Flood 2014): 2^64 divided by the golden ratio.
pub const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A stream of random numbers determined by its key.
#[derive(Clone, Debug)]
pub struct CounterRandom {
    key: u64,
    count: u64,
}

impl CounterRandom {
    /// Keyed by a list of numbers such as `[seed, set, row]`.
    pub fn new(parts: &[u64]) -> Self {
        Self {
            key: parts.iter().fold(
                GOLDEN,
                |key, part| mix(key ^ mix(part.wrapping_add(GOLDEN))),
            ),
            count: 0,
        }
    }

    pub fn fork(&self, name: &str) -> Self {
        Self::new(&[self.key, text_hash(name)])
    }

    pub fn next_bits(&mut self) -> u64 {
        self.count = self.count.wrapping_add(1);
        mix(self.key.wrapping_add(self.count.wrapping_mul(GOLDEN)))
    }

    /// Uniform in `0..limit`; 0 if `limit` is 0. Bias below limit / 2^64.
    pub fn below(&mut self, limit: u64) -> u64 {
        scale(self.next_bits(), limit)
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

pub fn scale(bits: u64, limit: u64) -> u64 {
    ((u128::from(bits) * u128::from(limit)) >> 64) as u64
}

/// A 64-bit hash of a text, the same on every machine (FNV-1a, then mixed).
pub fn text_hash(text: &str) -> u64 {
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

/// SplitMix64's finalizer: a bijection in which each input bit moves about half of the output bits.
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finalizer_is_splitmix64() {
        // The first outputs of the published SplitMix64 with state 0: mix(GOLDEN), mix(2 * GOLDEN), …
        let outputs = [
            0xE220_A839_7B1D_CDAF,
            0x6E78_9E6A_A1B9_65F4,
            0x06C4_5D18_8009_454F,
        ];
        for (count, expected) in (1_u64..).zip(outputs) {
            assert_eq!(mix(GOLDEN.wrapping_mul(count)), expected);
        }
    }

    #[test]
    fn draws_are_even_and_streams_differ() {
        let mut random = CounterRandom::new(&[1, 2, 3]);
        let mut counts = [0_u32; 10];
        (0..100_000).for_each(|_| counts[random.below(10) as usize] += 1);
        // 9 degrees of freedom: 27.9 is exceeded once in a thousand times.
        let chi_square: f64 = counts
            .iter()
            .map(|&count| (f64::from(count) - 1e4).powi(2) / 1e4)
            .sum();
        assert!(chi_square < 27.9, "chi-square {chi_square}");
        let first = |parts: &[u64]| CounterRandom::new(parts).next_bits();
        assert_ne!(first(&[1, 2]), first(&[2, 1]));
        assert_ne!(
            CounterRandom::new(&[1]).fork("a").next_bits(),
            CounterRandom::new(&[1]).fork("b").next_bits()
        );
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random.unit())));
    }
}
