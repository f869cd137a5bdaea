//! The hash of text that clients choose: SipHash-2-4 under a fixed key.
//!
//! Indexes only narrow a search, every hit is compared with the record; but all messages of one hash are compared. A fast hash
//! such as xxh3 can be steered: a client could send thousands of client_msg_nos of equal hash, and each further append would
//! walk them on the shard's thread. Without a random key (hashes are on disk, and runs must repeat) this needs a hash for which
//! nobody knows how to make many equal values. Costs about 20 ns for 32 bytes.

/// Second half of the key; the first is the seed.
const KEY: u64 = 0x776b_2d73_746f_7265;

/// Stable for ever: on disk. Another seed is another hash.
pub(crate) fn text_hash(text: &str, seed: u64) -> u64 {
    siphash(text.as_bytes(), seed, KEY)
}

struct State([u64; 4]);

impl State {
    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.0;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }

    fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }
}

fn siphash(bytes: &[u8], k0: u64, k1: u64) -> u64 {
    let mut state = State([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state.word(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8;
    state.word(u64::from_le_bytes(last));
    state.0[2] ^= 0xff;
    for _ in 0..4 {
        state.round();
    }
    state.0.iter().fold(0, |hash, v| hash ^ v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_vectors() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let input: Vec<u8> = (0..64).collect();
        let vector = |n: usize| siphash(&input[..n], key[0], key[1]);
        assert_eq!(vector(0), 0x726f_db47_dd0e_0e31);
        assert_eq!(vector(8), 0x93f5_f579_9a93_2462);
        assert_eq!(vector(15), 0xa129_ca61_49be_45e5);
    }
}
