//! Few bytes on the wire: codings, what need not be sent again, and parts of what was cut.

use crate::support::notes::{LIST, notes, until};
use crate::support::{Answer, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Read;

fn decode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
        "zstd" => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap(),
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        _ => flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut out).unwrap(),
    };
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn every_coding_carries_the_same_body_and_its_tag_is_recognised() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ids = notes(&admin).await;
    for n in 0..30 {
        let body = json!({"board": "red", "title": format!("title {n}")});
        admin.post("/api/collections/notes/records", body).await.created();
    }
    let anon = admin.clone().without_authorization();
    let plain = until(&anon, LIST, "l1").await;
    assert!(plain.header("content-encoding").is_none() && plain.body.len() > 1024);
    assert_eq!(plain.header("vary"), Some("Authorization, X-Tenant, Accept-Encoding, Origin"));
    assert!(plain.header("cache-tag").unwrap().contains(":notes"));
    for coding in ["br", "zstd", "gzip", "deflate"] {
        let asking = anon.clone().with_header("accept-encoding", coding);
        let coded = asking.clone().with_header("x-debug-size", "1").get(LIST).await.has_status(200);
        assert_eq!(coded.header("content-encoding"), Some(coding));
        assert_eq!(decode(coding, &coded.body), plain.body, "{coding}");
        assert_eq!(coded.header("x-original-size"), Some(plain.body.len().to_string().as_str()));
        assert_eq!(coded.header("x-compressed-size"), Some(coded.body.len().to_string().as_str()));
        assert!(coded.header("x-compression-ratio").unwrap().parse::<f64>().unwrap() > 0.5);
        let digits = plain.header("etag").unwrap().trim_matches('"');
        assert_eq!(coded.header("etag"), Some(format!("W/\"{digits}-{coding}\"").as_str()));
        for tag in [coded.header("etag"), plain.header("etag"), Some("*")] {
            let again = asking.clone().with_header("if-none-match", tag.unwrap()).get(LIST).await.has_status(304);
            assert!(again.body.is_empty());
            let held = if tag == Some("*") { coded.header("etag") } else { tag };
            assert_eq!(again.header("etag"), held, "the tag of what the client has");
            assert_eq!(again.header("x-cache"), Some("l1"));
            // Of what every answer carries, a 304 repeats what is not about the page it stands for.
            assert_eq!(again.header("x-content-type-options"), Some("nosniff"));
            assert!(again.header("x-request-id").is_some() && again.header("vary") == coded.header("vary"));
            assert_eq!((again.header("x-frame-options"), again.header("referrer-policy")), (None, None));
            assert_eq!(coded.header("x-frame-options"), Some("DENY"));
        }
        let changed = asking.with_header("if-none-match", "\"other\"").get(LIST).await;
        changed.has_status(200);
    }
    // Too small to be worth it, or the client wants the plain form alone.
    let small = format!("/api/collections/notes/records/{}", ids[0]);
    let small = anon.clone().with_header("accept-encoding", "br, gzip").get(&small).await.has_status(200);
    assert!(small.header("content-encoding").is_none());
    let never = anon.clone().with_header("accept-encoding", "gzip;q=0, identity").get(LIST).await.has_status(200);
    assert_eq!(never.body, plain.body);
    let only = anon.clone().with_header("accept-encoding", "identity;q=0, gzip").get(LIST).await.has_status(200);
    assert_eq!(only.header("content-encoding"), Some("gzip"));

    // No coding at all is taken: RFC 9110, 12.5.3 lets the server send the plain form rather than nothing.
    let none = anon.clone().with_header("accept-encoding", "identity;q=0").get(LIST).await.has_status(200);
    assert_eq!((none.header("content-encoding"), &none.body), (None, &plain.body));
    let any = anon.clone().with_header("accept-encoding", "identity;q=0, *").get(LIST).await.has_status(200);
    assert!(any.header("content-encoding").is_some());

    let head = Answer::of(anon.request(Method::HEAD, LIST)).await.has_status(200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("etag"), plain.header("etag"));
    assert_eq!(head.header("content-length"), Some(plain.body.len().to_string().as_str()));
}

/// Hexadecimal digits that repeat nowhere.
fn digits(len: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from_digit(u32::try_from(state >> 60).unwrap(), 16).unwrap()
    };
    (0..len).map(|_| next()).collect()
}

/// The third coding that clients asked for, and every coding of what shrinks to more than half, was made anew for each of them.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_1_kib_up_is_compressed_once_per_coding_whoever_asks_how_often() {
    const CODINGS: [&str; 4] = ["zstd", "br", "gzip", "deflate"];
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let body = json!({"name": "texts", "type": "base", "listRule": "", "viewRule": "",
        "fields": [{"name": "text", "type": "text", "max": 100_000}]});
    admin.post("/api/collections", body).await.created();
    let anon = admin.clone().without_authorization();
    let text = async |text: String| {
        let made = admin.post("/api/collections/texts/records", json!({"text": text})).await.created();
        format!("/api/collections/texts/records/{}?fields=text", made["id"].as_str().unwrap())
    };
    for (size, coded) in [(1_023, None), (1_024, Some("gzip"))] {
        let path = text("x".repeat(size - json!({"text": ""}).to_string().len())).await;
        let answer = anon.clone().with_header("accept-encoding", "gzip").get(&path).await.has_status(200);
        assert_eq!(answer.header("content-encoding"), coded, "{size} bytes");
        assert!(coded.is_some() || answer.body.len() == size);
    }
    let counts = async || {
        let report = server.node().get("/api/admin/performance?type=cache").await.ok();
        CODINGS.map(|coding| report["compression"]["codings"][coding]["count"].as_u64().unwrap())
    };
    let words: String = (0..400).map(|n| format!("{} of {n}, ", ["won", "lost", "drawn"][n * n % 3])).collect();
    for (text, path) in [("words", text(words).await), ("digits", text(digits(6_000)).await)] {
        let before = counts().await;
        let plain = anon.get(&path).await.has_status(200).body;
        for round in 0..5 {
            for coding in CODINGS {
                let answer = anon.clone().with_header("accept-encoding", coding).get(&path).await.has_status(200);
                let known = answer.header("content-encoding").unwrap_or("identity").to_owned();
                let body = if known == coding { decode(coding, &answer.body) } else { answer.body.to_vec() };
                assert_eq!(body, plain, "{text} as {coding}");
                // What does not shrink well is kept in the coding that was asked for first; the rest is sent as it is.
                assert!(known == coding || (text == "digits" && coding != "zstd"), "round {round}: {text} as {coding}");
            }
        }
        let made = counts().await;
        assert_eq!(std::array::from_fn(|n| made[n] - before[n]), [1; 4], "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_can_be_continued_and_never_patched_together_from_two() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    let ids = notes(&admin).await;
    let lines: Vec<Value> = (0..150)
        .map(|n| json!({"method": "POST", "url": "/api/collections/notes/records", "body": {"board": "red", "title": format!("{n} {}", "long ".repeat(90))}}))
        .collect();
    admin.post("/api/batch", json!({"requests": lines})).await.has_status(200);
    let anon = admin.clone().without_authorization();
    let path = &format!("{LIST}&perPage=500");
    let whole = until(&anon, path, "l1").await;
    let (size, tag) = (whole.body.len(), whole.header("etag").unwrap().to_owned());
    assert!(size > 64 * 1024);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));

    let asking = |range: &str| anon.clone().with_header("range", range).with_header("accept-encoding", "br");
    let cut = size / 3;
    let first = asking(&format!("bytes=0-{}", cut - 1)).get(path).await.has_status(206);
    assert_eq!(first.header("content-range"), Some(&*format!("bytes 0-{}/{size}", cut - 1)));
    assert!(first.header("content-encoding").is_none(), "parts are of the plain body");
    assert_eq!(first.header("etag"), Some(&*tag));
    let rest = asking(&format!("bytes={cut}-")).with_header("if-range", &*tag).get(path).await.has_status(206);
    assert_eq!([first.body, rest.body].concat(), whole.body);
    let last = asking("bytes=-7").get(path).await.has_status(206);
    assert_eq!(last.body, whole.body[size - 7..]);
    for all in ["bytes=0-1,5-6", "lines=1-2", "bytes=9-2"] {
        asking(all).get(path).await.has_status(200);
    }
    let outside = asking(&format!("bytes={size}-")).get(path).await.has_status(416);
    assert_eq!(outside.header("content-range"), Some(&*format!("bytes */{size}")));
    outside.problem("range_not_satisfiable");
    let head = anon.clone().with_header("range", "bytes=0-9").request(Method::HEAD, path);
    Answer::of(head).await.has_status(200);
    asking("bytes=0-9").with_header("if-none-match", &*tag).get(path).await.has_status(304);

    // Another answer by now: all of it, not a part that does not fit.
    admin.patch(&format!("/api/collections/notes/records/{}", ids[0]), json!({"title": "other"})).await.ok();
    let changed = asking(&format!("bytes={cut}-")).with_header("if-range", &*tag).get(path).await.has_status(200);
    assert_ne!(changed.header("etag"), Some(&*tag));
    for unfit in [format!("W/{tag}"), "Sat, 01 Jan 2028 00:00:00 GMT".to_owned()] {
        asking("bytes=0-9").with_header("if-range", unfit).get(path).await.has_status(200);
    }
    let export = admin.get("/api/collections/notes/export").await.has_status(200);
    assert_eq!(export.header("accept-ranges"), Some("none"));
}
