//! A session description that is as long as a browser's (RFC 8866, RFC 8829): the name of the call
//! is its session name, the rest is always the same.

use crate::template::Template;

/// What every WebRTC offer begins with.
const OPENING: &str = "v=0\r\no=- 4611732784932716043 2 IN IP4 127.0.0.1\r\ns={id}\r\nt=0 0\r\n\
    a=group:BUNDLE 0\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS 6c1f3a52\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\nc=IN IP4 0.0.0.0\r\n\
    a=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:4ZcD\r\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlBx\r\n\
    a=ice-options:trickle\r\na=fingerprint:sha-256 \
    7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08\r\n\
    a=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
    a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n\
    a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n";

/// What a phone without WebRTC offers.
const SHORT: &str = "v=0\r\no=- 4611732784932716043 2 IN IP4 127.0.0.1\r\ns={id}\r\n\
    c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 8\r\n";

/// A description of about `bytes` bytes, and never less than a whole one.
pub fn template(bytes: usize) -> Template {
    let mut text = if bytes < OPENING.len() { SHORT } else { OPENING }.to_owned();
    let mut port = 40_000;
    while text.len() + 100 <= bytes {
        text.push_str(&format!(
            "a=candidate:2745017813 1 udp 2122260223 192.0.2.{} {port} typ host generation 0 \
             network-id 1 cost 10\r\n",
            port % 200 + 10
        ));
        port += 1;
    }
    Template::new(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Values;

    #[test]
    fn it_is_about_as_long_as_wanted() {
        for (bytes, least, most) in [(0, 100, 200), (2000, 1890, 2010), (6000, 5890, 6010)] {
            let length = template(bytes).fill(&Values::default()).len();
            assert!((least..=most).contains(&length), "{bytes}: {length}");
        }
    }
}
