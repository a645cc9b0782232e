//! Masking of client frames (RFC 6455 §5.3): the same operation masks and unmasks.

/// Bytes per step: four words, which the compiler turns into vector registers of whatever width
/// there is.
const STEP: usize = 32;

/// Applies `mask` in place. `phase` is how many bytes of the payload came before these.
pub fn unmask(mask: [u8; 4], phase: usize, bytes: &mut [u8]) {
    let turned: [u8; 4] = std::array::from_fn(|i| mask[(phase + i) % 4]);
    let word = u32::from_ne_bytes(turned);
    let word = u64::from(word) << 32 | u64::from(word);
    let (steps, rest) = bytes.as_chunks_mut::<STEP>();
    for step in steps {
        for lane in step.as_chunks_mut::<8>().0 {
            *lane = (u64::from_ne_bytes(*lane) ^ word).to_ne_bytes();
        }
    }
    for (i, byte) in rest.iter_mut().enumerate() {
        *byte ^= turned[i % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_equals_the_definition_at_every_length_phase_and_alignment() {
        let mask = [0x12, 0xff, 0x00, 0x9a];
        let source: Vec<u8> = (0..=255).collect();
        for start in 0..9 {
            for len in 0..150 {
                for phase in 0..5 {
                    let mut bytes = source.clone();
                    unmask(mask, phase, &mut bytes[start..start + len]);
                    for (i, byte) in bytes.iter().enumerate() {
                        let masked = (start..start + len).contains(&i);
                        let key = if masked { mask[(phase + i - start) % 4] } else { 0 };
                        assert_eq!(*byte, source[i] ^ key);
                    }
                }
            }
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455 §5.7: a single-frame masked text message.
        let mut bytes = *b"\x7f\x9f\x4d\x51\x58";
        unmask([0x37, 0xfa, 0x21, 0x3d], 0, &mut bytes);
        assert_eq!(&bytes, b"Hello");
    }
}
