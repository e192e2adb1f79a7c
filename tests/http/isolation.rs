//! Everything that names something in tenant A, replayed against tenant B: nothing is found, nothing changes.

use crate::support::{Actor, TestServer};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse";

/// One of two tenants with the same collections, and what can be carried from it to the other.
struct Side {
    anon: Actor,
    user: Actor,
    user_id: String,
    post_id: String,
    token: String,
    refresh: String,
    key: String,
    cursor: String,
    file_token: String,
}

async fn side(root: &Actor, anon: &Actor, slug: &str) -> Side {
    root.post("/api/tenants", json!({"slug": slug})).await.created();
    let (admin, anon) = (root.clone().at(slug), anon.clone().at(slug));
    let any_user = "@request.auth.id != ''";
    let posts = json!({
        "name": "posts", "type": "base",
        "fields": [{"name": "title", "type": "text"}],
        "listRule": any_user, "viewRule": any_user, "createRule": any_user,
        "updateRule": any_user, "deleteRule": any_user,
    });
    admin.post("/api/collections", posts).await.created();
    let body = json!({"email": "ada@a.test", "password": PASSWORD, "passwordConfirm": PASSWORD});
    let user_id = anon.post("/api/collections/users/records", body).await.created()["id"].as_str().unwrap().to_owned();
    let body = json!({"identity": "ada@a.test", "password": PASSWORD});
    let grant = anon.post("/api/collections/users/auth-with-password?session=1", body).await.ok();
    let token = grant["token"].as_str().unwrap().to_owned();
    let user = anon.clone().with_authorization(token.as_str());
    let mut post_id = String::new();
    for n in 0..3 {
        let body = json!({"title": format!("{slug} {n}")});
        let post = user.post("/api/collections/posts/records", body).await.created();
        post_id = post["id"].as_str().unwrap().to_owned();
    }
    let page = user.get("/api/collections/posts/records?cursor=&perPage=1").await.ok();
    let key = json!({"name": "k", "scopes": {"operations": ["read", "create", "update", "delete"]}});
    let key = user.post("/api/keys", key).await.created()["key"].as_str().unwrap().to_owned();
    let file_token = user.post("/api/files/token", json!({})).await.ok()["token"].as_str().unwrap().to_owned();
    let refresh = grant["refreshToken"].as_str().unwrap().to_owned();
    let cursor = page["nextCursor"].as_str().unwrap().to_owned();
    Side { anon, user, user_id, post_id, token, refresh, key, cursor, file_token }
}

async fn titles(side: &Side) -> Vec<String> {
    let page: Value = side.user.get("/api/collections/posts/records?sort=title").await.ok();
    page["items"].as_array().unwrap().iter().map(|post| post["title"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_one_tenant_is_good_for_anything_in_another() {
    let server = TestServer::start().await;
    let (root, anon) = (server.node(), server.anon());
    let a = side(&root, &anon, "tenant-a").await;
    let b = side(&root, &anon, "tenant-b").await;
    let before = titles(&b).await;

    // Credentials: whoever carries them is a stranger in B.
    for credential in [&a.token, &a.key, &a.file_token, &a.refresh] {
        let stranger = b.anon.clone().with_authorization(credential.as_str());
        let listed = stranger.get("/api/collections/posts/records").await.ok();
        assert_eq!(listed["items"], json!([]));
        stranger.get(&format!("/api/collections/posts/records/{}", b.post_id)).await.problem("record_not_found");
        stranger.get("/api/collections/users/sessions").await.problem("token_invalid");
        let refused = stranger.post("/api/collections/posts/records", json!({"title": "from A"})).await;
        assert!(refused.status.is_client_error());
        let refused = stranger
            .post(
                "/api/batch",
                json!({"requests": [
            {"method": "POST", "url": "/api/collections/posts/records", "body": {"title": "from A"}}]}),
            )
            .await;
        assert!(refused.status.is_client_error());
    }
    let refresh = json!({"refreshToken": a.refresh});
    b.anon.post("/api/collections/users/auth-refresh", refresh).await.problem("token_invalid");

    // Ids: they do not exist in B, not even for B's own user or the administrator.
    for actor in [&b.user, &root.clone().at("tenant-b")] {
        let path = format!("/api/collections/posts/records/{}", a.post_id);
        actor.get(&path).await.problem("record_not_found");
        actor.patch(&path, json!({"title": "from A"})).await.problem("record_not_found");
        actor.delete(&path).await.problem("record_not_found");
        actor.get(&format!("/api/collections/users/records/{}", a.user_id)).await.problem("record_not_found");
    }

    // Cursors are bound to their tenant.
    let path = format!("/api/collections/posts/records?perPage=1&cursor={}", a.cursor);
    a.user.get(&path).await.ok();
    b.user.get(&path).await.problem("cursor_invalid");

    // Requests inside a batch, and paths that climb, stay inside.
    for url in ["/t/tenant-a/api/collections/posts/records", "/../tenant-a/api/collections/posts/records"] {
        let body = json!({"requests": [{"method": "POST", "url": url, "body": {"title": "climbed"}}]});
        let refused = b.user.post("/api/batch", body).await;
        assert!(refused.status.is_client_error(), "{url}");
    }
    let crossed = b.user.clone().with_header("x-tenant", "tenant-a");
    crossed.get("/api/collections/posts/records").await.problem("tenant_ambiguous");

    assert_eq!(titles(&b).await, before);
    assert_eq!(titles(&a).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_address_slug_and_id_may_be_in_two_tenants() {
    let server = TestServer::start().await;
    let (root, anon) = (server.node(), server.anon());
    let a = side(&root, &anon, "tenant-a").await;
    let b = side(&root, &anon, "tenant-b").await;
    for side in [&a, &b] {
        side.user
            .post("/api/collections/posts/records", json!({"id": "sameidsameidsam", "title": "x"}))
            .await
            .created();
    }
    a.user.delete("/api/collections/posts/records/sameidsameidsam").await.gone();
    b.user.get("/api/collections/posts/records/sameidsameidsam").await.ok();
}
