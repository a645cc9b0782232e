//! What a message costs to read, change and answer. The aims: 0.35 µs for the parse of a 600-byte
//! request, 0.15 µs for its forward edit.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sipring::base::limits::Limits;
use sipring::sip::{
    Edits, Frame, HeaderName, Message, Parsed, ResponseParts, Scan, ViaParams, frame, parse,
    response,
};

/// A request of a phone through one proxy, as an edge gets it: about 600 bytes.
fn small() -> Vec<u8> {
    b"MESSAGE sip:bob@edge.example.com;transport=tcp SIP/2.0\r\n\
      Via: SIP/2.0/TCP 192.0.2.10:5060;branch=z9hG4bK7c0fb1a2d93e;rport\r\n\
      Via: SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bKnashds8;received=198.51.100.7\r\n\
      Max-Forwards: 69\r\n\
      From: \"Alice Example\" <sip:alice@example.com>;tag=9fxced76sl\r\n\
      To: <sip:bob@example.com>\r\n\
      Call-ID: 3848276298220188511@atlanta.example.com\r\n\
      CSeq: 1 MESSAGE\r\n\
      Contact: <sip:alice@198.51.100.7:5062;transport=udp>\r\n\
      P-Asserted-Identity: \"Alice Example\" <sip:alice@example.com>\r\n\
      User-Agent: Example Phone 1.0\r\n\
      Content-Type: text/plain\r\n\
      Content-Length: 18\r\n\
      \r\n\
      Watson, come here."
        .to_vec()
}

/// An INVITE with SDP, credentials and the headers that phones add: about 2 KB.
fn large() -> Vec<u8> {
    let sdp = "v=0\r\no=alice 2890844526 2890844526 IN IP4 client.example.com\r\ns=-\r\n\
               c=IN IP4 192.0.2.101\r\nt=0 0\r\nm=audio 49172 RTP/AVP 0 8 101\r\n\
               a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
        .repeat(4);
    let head = "INVITE sip:bob@example.com SIP/2.0\r\n\
         Via: SIP/2.0/WSS 4fd93jsp.invalid;branch=z9hG4bK5601932\r\n\
         Max-Forwards: 70\r\n\
         Route: <sip:edge.example.com;transport=ws;lr>\r\n\
         From: \"Alice\" <sip:alice@example.com>;tag=dlio2jf9\r\n\
         To: <sip:bob@example.com>\r\n\
         Call-ID: p6vmcj1cjt4qnaqmrtdo\r\n\
         CSeq: 7201 INVITE\r\n\
         Proxy-Authorization: Digest algorithm=MD5, username=\"alice\", realm=\"example.com\", \
         nonce=\"b3f1a2c4d5e6f708192a3b4c5d6e7f80\", uri=\"sip:bob@example.com\", \
         response=\"6629fae49393a05397450978507c4ef1\", qop=auth, \
         cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv\", \
         nc=00000001\r\n\
         X-Trace: 0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
         Session-Expires: 90\r\n\
         Contact: <sip:0o2fbqo1@4fd93jsp.invalid;transport=ws;ob>;+sip.ice;reg-id=1\
         ;+sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\"\r\n\
         Content-Type: application/sdp\r\n\
         Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY\r\n\
         Supported: timer,gruu,ice,replaces,outbound\r\n\
         User-Agent: Example Browser 3.13.0\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{sdp}", sdp.len()).into_bytes()
}

fn messages() -> [(&'static str, Vec<u8>); 2] {
    [("request", small()), ("invite", large())]
}

fn reading(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    for (name, bytes) in messages() {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut parsed = Parsed::default();
        group.bench_function(BenchmarkId::new("parse", name), |b| {
            b.iter(|| parse(black_box(&bytes), &mut parsed).is_ok());
        });
        parse(&bytes, &mut parsed).expect("a good sample");
        group.bench_function(BenchmarkId::new("values", name), |b| {
            b.iter(|| access(black_box(parsed.view(&bytes))));
        });
        group.bench_function(BenchmarkId::new("check", name), |b| {
            b.iter(|| black_box(parsed.view(&bytes)).check().is_ok());
        });
        let limits = Limits::default();
        group.bench_function(BenchmarkId::new("frame", name), |b| {
            b.iter(|| {
                let frame = frame::next(black_box(&bytes), &limits, &mut Scan::default());
                matches!(frame, Ok(Frame::Message { .. }))
            });
        });
    }
    group.finish();
}

/// What a proxy asks of every message.
fn access(message: Message<'_>) -> usize {
    let via = message.top_via().expect("a Via");
    let from = message.from().expect("a From");
    let to = message.to().expect("a To");
    let cseq = message.cseq().expect("a CSeq");
    via.branch.map_or(0, <[u8]>::len)
        + from.tag().map_or(0, <[u8]>::len)
        + to.tag().map_or(0, <[u8]>::len)
        + cseq.number as usize
}

fn writing(c: &mut Criterion) {
    let mut group = c.benchmark_group("write");
    for (name, bytes) in messages() {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut parsed = Parsed::default();
        parse(&bytes, &mut parsed).expect("a good sample");
        let message = parsed.view(&bytes);
        let (mut edits, mut out) = (Edits::default(), Vec::new());
        group.bench_function(BenchmarkId::new("forward", name), |b| {
            b.iter(|| forward(black_box(message), &mut edits, &mut out));
        });
        let parts = ResponseParts {
            status: 180,
            to_tag: Some(b"a6c85cf"),
            via_params: ViaParams { rport: Some(5060), ..ViaParams::default() },
            ..ResponseParts::default()
        };
        group.bench_function(BenchmarkId::new("response", name), |b| {
            b.iter(|| {
                out.clear();
                response(black_box(message), &parts, &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

/// New Request-URI, a Via on top, Max-Forwards less one, a Record-Route.
fn forward(message: Message<'_>, edits: &mut Edits, out: &mut Vec<u8>) -> usize {
    edits.clear();
    out.clear();
    edits.replace(message.uri_span(), b"sip:0o2fbqo1@4fd93jsp.invalid;transport=ws");
    edits.insert_with(message.first_header_start(), |text| {
        text.extend_from_slice(b"Via: SIP/2.0/WSS edge.example.com;branch=z9hG4bK");
        text.extend_from_slice(b"0a1b2c3d4e5f60718293a4b5\r\n");
        text.extend_from_slice(b"Record-Route: <sip:");
        text.extend_from_slice(b"AAECAwQFBgcICQoLDA0ODw@edge.example.com;lr>\r\n");
    });
    if let Some(header) = message.header(HeaderName::MaxForwards) {
        edits.replace(header.value_span, b"68");
    }
    edits.write_to(message.bytes(), out);
    out.len()
}

criterion_group!(benches, reading, writing);
criterion_main!(benches);
