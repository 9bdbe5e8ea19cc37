//! The data of `write` and `b64write`, and of the replies to `read` and `b64read`.

/// The bytes of `0x0102…` as QEMU takes them: half a byte at the end is left out.
///
/// # Errors
/// Says what is wrong with it.
pub fn from_hex(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let [b'0', b'x' | b'X', digits @ ..] = text else {
        return Err("data that does not begin with 0x");
    };
    let nibble = |digit: &u8| char::from(*digit).to_digit(16).map(|value| value as u8);
    // The digit that is left out must be one all the same.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("data that is not hexadecimal");
    }
    let (pairs, _) = digits.as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(nibble(high)? << 4 | nibble(low)?);
    pairs.iter().map(byte).collect::<Option<_>>().ok_or("data that is not hexadecimal")
}

/// The bytes of base64 text (RFC 4648 §4), padded or not.
///
/// # Errors
/// Says what is wrong with it.
pub fn from_base64(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    const BAD: &str = "data that is not base64";
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = text.get(..text.len() - padding).unwrap_or_default();
    let padded = padding == 0 || (padding <= 2 && text.len().is_multiple_of(4));
    if !padded || body.len() % 4 == 1 {
        return Err(BAD);
    }
    let mut out = Vec::with_capacity(body.len() / 4 * 3 + 2);
    for group in body.chunks(4) {
        let mut bits = 0u32;
        for digit in group {
            bits = bits << 6 | sextet(*digit).ok_or(BAD)?;
        }
        bits <<= 6 * (4 - group.len());
        let bytes = bits.to_be_bytes();
        out.extend(bytes.iter().skip(1).take(group.len() - 1));
    }
    Ok(out)
}

/// Appends base64 text (RFC 4648 §4) with its padding.
pub fn to_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        if let Some(part) = bits.get_mut(1..=group.len()) {
            part.copy_from_slice(group);
        }
        let bits = u32::from_be_bytes(bits);
        for at in 0..4 {
            let digit = (bits >> (18 - 6 * at) & 0x3f) as usize;
            out.push(if at <= group.len() { DIGITS[digit] } else { b'=' });
        }
    }
}

fn sextet(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        assert_eq!(from_hex(b"0x0102fF").unwrap(), [1, 2, 255]);
        assert_eq!(from_hex(b"0x01020").unwrap(), [1, 2]);
        assert_eq!(from_hex(b"0x0").unwrap(), b"");
        for bad in [&b"0102"[..], b"0x01g2", b"0x010g", b"", b"0x01 2"] {
            assert!(from_hex(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn base64_there_and_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..bytes.len() {
            let mut text = Vec::new();
            to_base64(&bytes[..len], &mut text);
            assert!(text.len().is_multiple_of(4));
            assert_eq!(from_base64(&text).unwrap(), &bytes[..len]);
        }
    }

    #[test]
    fn base64_of_the_rfc() {
        // RFC 4648 §10.
        for (text, data) in [
            (&b""[..], &b""[..]),
            (b"Zg==", b"f"),
            (b"Zm8=", b"fo"),
            (b"Zm9v", b"foo"),
            (b"Zm9vYg==", b"foob"),
            (b"Zm9vYmE=", b"fooba"),
            (b"Zm9vYmFy", b"foobar"),
            (b"Zm9vYg", b"foob"),
            (b"+/+/", &[0xfb, 0xff, 0xbf]),
        ] {
            assert_eq!(from_base64(text).unwrap(), data, "{}", text.escape_ascii());
        }
        for bad in [&b"Z"[..], b"Zg=", b"Zg===", b"====", b"Zm9vY", b"Zm 9", b"Zm9v=", b"Z-9v"] {
            assert!(from_base64(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
