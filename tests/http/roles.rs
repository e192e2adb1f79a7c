//! Roles of members: the blueprints bring them, and their rules read them.

use crate::support::{Actor, TestServer, User};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ROLES: [&str; 5] = ["owner", "admin", "director", "member", "viewer"];

async fn create(actor: &Actor, collection: &str, body: Value) -> crate::support::Answer {
    actor.post(&format!("/api/collections/{collection}/records"), body).await
}

/// An organisation of `owner` with one member per role, by role.
async fn staffed(server: &TestServer, admin: &Actor, name: &str) -> (String, BTreeMap<&'static str, User>) {
    let mut people = BTreeMap::new();
    for role in ROLES {
        people.insert(role, server.user(admin, &format!("{role}-of-{name}")).await);
    }
    let owner = &people["owner"];
    let body = json!({ "name": name, "slug": name, "owner": owner.id });
    let organisation = create(&owner.actor, "organisations", body).await.created()["id"].as_str().unwrap().to_owned();
    for (role, person) in &people {
        let body = json!({ "organisation": organisation, "user": person.id, "role": role });
        create(&owner.actor, "members", body).await.created();
    }
    (organisation, people)
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_of_members_decide_what_they_may_do() {
    let server = TestServer::start().await;
    server
        .node()
        .post("/api/tenants", json!({ "slug": "acme", "name": "Acme", "blueprint": "tournament" }))
        .await
        .created();
    let admin = server.node().at("acme");
    let (club, people) = staffed(&server, &admin, "club").await;
    let (other, others) = staffed(&server, &admin, "other").await;
    let tournament = |organisation: &str| json!({ "organisation": organisation, "name": "Open", "status": "draft", "starts": "2030-01-01 10:00:00.000Z" });
    let mut drafts = 0;
    for role in ROLES {
        let made = create(&people[role].actor, "tournaments", tournament(&club)).await;
        let may = ["owner", "admin", "director"].contains(&role);
        assert_eq!(made.status == 200, may, "{role} creates");
        drafts += u32::from(may);
        let abroad = create(&people[role].actor, "tournaments", tournament(&other)).await;
        assert_ne!(abroad.status, 200, "{role} creates elsewhere");
    }
    for role in ROLES {
        let listed = people[role].actor.get("/api/collections/tournaments/records").await.ok();
        assert_eq!(listed["totalItems"], drafts, "{role} sees the drafts of the own club");
        let listed = others[role].actor.get("/api/collections/tournaments/records").await.ok();
        assert_eq!(listed["totalItems"], 0, "{role} of another club does not");
    }
    // Rights of two clubs do not add up: a viewer here who owns another club stays a viewer here.
    let body = json!({ "organisation": club, "user": others["owner"].id, "role": "viewer" });
    create(&people["owner"].actor, "members", body).await.created();
    assert_ne!(create(&others["owner"].actor, "tournaments", tournament(&club)).await.status, 200);
    create(&others["owner"].actor, "tournaments", tournament(&other)).await.created();

    // Nobody makes themselves more than they are; a role that is taken away is gone at the next request.
    let found = people["owner"].actor.get("/api/collections/members/records?perPage=100").await.ok();
    let membership = |user: &User| {
        let items = found["items"].as_array().unwrap();
        items.iter().find(|item| item["user"] == *user.id).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let path = |user: &User| format!("/api/collections/members/records/{}", membership(user));
    for role in ["director", "member", "viewer"] {
        let raised = people[role].actor.patch(&path(&people[role]), json!({ "role": "admin" })).await;
        assert_ne!(raised.status, 200, "{role} raises the own role");
    }
    let raised = people["admin"].actor.patch(&path(&people["admin"]), json!({ "role": "owner" })).await;
    assert_ne!(raised.status, 200, "an admin does not make owners");
    people["owner"].actor.patch(&path(&people["director"]), json!({ "role": "viewer" })).await.ok();
    assert_ne!(create(&people["director"].actor, "tournaments", tournament(&club)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_blueprint_knows_the_five_roles() {
    let server = TestServer::start().await;
    for blueprint in ["tournament", "cms", "courses", "business"] {
        let body = json!({ "slug": format!("of-{blueprint}"), "name": blueprint, "blueprint": blueprint });
        server.node().post("/api/tenants", body).await.created();
        let admin = server.node().at(&format!("of-{blueprint}"));
        let members = admin.get("/api/collections/members").await.ok();
        let role = members["fields"].as_array().unwrap().iter().find(|field| field["name"] == "role").unwrap();
        assert_eq!(role["values"], json!(ROLES), "{blueprint}");
        let reading = admin.get("/api/collections?perPage=100").await.ok();
        let rules = reading["items"].as_array().unwrap().iter().filter(|collection| {
            ["createRule", "updateRule"]
                .iter()
                .any(|rule| collection[rule].as_str().is_some_and(|rule| rule.contains("@collection.members.role")))
        });
        assert!(rules.count() > 0, "no rule of {blueprint} reads the roles");
    }
}
