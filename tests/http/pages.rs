//! The page behind the links in mails: it is there where the links lead, and its answers let in nothing of others.

use crate::support::{Actor, TestServer, link};
use serde_json::json;

/// The address of the page as the client of this test reaches it, and the token behind the `#`.
fn parts(link: &str) -> (String, String) {
    let (address, fragment) = link.split_once('#').unwrap();
    let path = format!("/{}", address.splitn(4, '/').nth(3).unwrap());
    (path, fragment.rsplit('/').next().unwrap().to_owned())
}

async fn is_the_page(anyone: &Actor, path: &str) {
    let page = anyone.get(path).await.has_status(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
    let policy = page.header("content-security-policy").unwrap().to_owned();
    for part in ["default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let text = String::from_utf8(page.body).unwrap();
    // What the policy would not let run is not there either.
    let tags: Vec<&str> = text.split('<').skip(1).filter_map(|rest| rest.split('>').next()).collect();
    assert!(
        !tags.iter().any(|tag| tag.starts_with("style") || tag.contains(" style=") || tag.contains(" on")),
        "{text}"
    );
    assert_eq!(text.matches("<script").count(), 1);
    for file in text.split(['"']).filter(|part| part.starts_with("account.")) {
        let answer = anyone.get(&format!("{path}{file}")).await.has_status(200);
        let wanted = if file.ends_with(".js") { "text/javascript" } else { "text/css" };
        assert!(answer.header("content-type").unwrap().starts_with(wanted), "{file}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_mails_lead_to_a_page_that_does_what_they_promise() {
    let server = TestServer::start().await;
    let admin = server.tenant("acme").await;
    // The tenant `main` is at the address itself, every other one behind its prefix.
    for (tenant, path) in [(server.node(), "/_/"), (admin, "/t/acme/_/")] {
        let ada = server.user(&tenant, "ada").await;
        let anyone = tenant.clone().without_authorization();
        let email = "ada@example.com";
        let users = "/api/collections/users";

        anyone.post(&format!("{users}/request-verification"), json!({ "email": email })).await.gone();
        let (found, token) = parts(&link(&server, email, &format!("{path}#/auth/confirm-verification/")).await);
        assert_eq!(found, path);
        is_the_page(&server.anon(), &found).await;
        anyone.post(&format!("{users}/confirm-verification"), json!({ "token": token })).await.gone();

        let change = json!({ "newEmail": "lovelace@example.com" });
        ada.actor.post(&format!("{users}/request-email-change"), change).await.gone();
        let wanted = format!("{path}#/auth/confirm-email-change/");
        let change = link(&server, "lovelace@example.com", &wanted).await;
        let (found, token) = parts(&change);
        assert_eq!(found, path);
        let body = json!({ "token": token, "password": crate::support::PASSWORD });
        anyone.post(&format!("{users}/confirm-email-change"), body).await.gone();

        let email = json!({ "email": "lovelace@example.com" });
        anyone.post(&format!("{users}/request-password-reset"), email).await.gone();
        let reset = link(&server, "lovelace@example.com", &format!("{path}#/auth/confirm-password-reset/")).await;
        let (found, token) = parts(&reset);
        assert_eq!(found, path);
        let body = json!({ "token": token, "password": "another horse", "passwordConfirm": "another horse" });
        anyone.post(&format!("{users}/confirm-password-reset"), body).await.gone();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_masks_passwords_lets_them_be_pasted_and_says_which_they_are() {
    let server = TestServer::start().await;
    let page = String::from_utf8(server.anon().get("/_/").await.has_status(200).body).unwrap();
    let fields: Vec<&str> = page
        .split("<input")
        .skip(1)
        .map(|rest| rest.split('>').next().unwrap())
        .filter(|field| field.contains("name="))
        .collect();
    assert_eq!(fields.len(), 4);
    for field in fields {
        assert!(field.contains("type=\"password\""), "{field}");
        assert!(field.contains("autocomplete=\"new-password\"") || field.contains("autocomplete=\"current-password\""));
        assert!(!field.contains("maxlength") && !field.contains("readonly"), "{field}");
    }
    let script = String::from_utf8(server.anon().get("/_/account.js").await.has_status(200).body).unwrap();
    assert!(!script.contains("paste") && !script.contains("innerHTML") && script.contains("replaceState"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_has_one_address_and_no_other_files() {
    let server = TestServer::start().await;
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let answer = http.get(format!("{}/_?a=b", server.url())).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (308, &"_/?a=b".parse().unwrap()));
    for file in ["/_/account.html", "/_/..%2f..%2fCargo.toml", "/_/index.html", "/_/a/b"] {
        server.anon().get(file).await.problem("route_not_found");
    }
    server.anon().post("/_/", json!({})).await.problem("method_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_not_there_has_no_page() {
    let server = TestServer::start().await;
    for path in ["/t/nope/_/", "/t/nope/_/account.js", "/t/nope/_"] {
        server.anon().get(path).await.problem("tenant_not_found");
    }
}
