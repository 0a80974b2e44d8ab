//! Letting Canaries go without a controller: what belongs to them belongs to nobody after that, and serves on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::crds::Group;
use crate::edge::client::Connection;
use crate::failure::{CallError, Failure};
use crate::object::{list, text};
use crate::release;
use crate::resource::{ObjectRef, Resource};
use crate::world::Kind;
use crate::writes::{MANAGER, SCALE_MANAGER};

/// Time for one call; then it failed, and the command can be given again.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Objects of one page of a list.
const PAGE_SIZE: u32 = 500;
/// How often a patch is made anew, since somebody changed the object in between; then it failed.
const MAX_ATTEMPTS: u32 = 8;

/// Which Canaries are let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// All of a namespace, or of the cluster.
    All(Option<&'a str>),
    /// That of this namespace and name, of either group.
    One(&'a str, &'a str),
}

/// A Canary that was let go, or was not.
#[derive(Debug)]
pub struct Released {
    /// The Canary.
    pub canary: ObjectRef,
    /// What belonged to it, and belongs to nobody now; or why not all of it does.
    pub left: Result<Vec<ObjectRef>, CallError>,
}

/// What belongs to Canaries and serves, by namespace.
type Belongings = BTreeMap<String, Vec<(ObjectRef, Value)>>;

/// Lets Canaries of these groups go, one after another. One that cannot be let go keeps no other one. None: there is none.
pub async fn release(connection: &Connection, groups: &[Group], which: Which<'_>) -> Result<Vec<Released>, CallError> {
    let (mut belongings, mut released) = (Belongings::new(), Vec::new());
    for group in groups.iter().copied() {
        for object in canaries(connection, group, which).await? {
            let of = |field: &str| text(&object, &format!("/metadata/{field}")).unwrap_or_default();
            let canary = ObjectRef::new(Resource::of(Kind::Canary, group), of("namespace"), of("name"));
            let left = one(connection, &canary, object, &mut belongings).await;
            released.push(Released { canary, left });
        }
    }
    Ok(released)
}

/// Has no controller run any more that this Deployment runs. It may be gone already.
pub async fn stop(connection: &Connection, namespace: &str, name: &str) -> Result<(), CallError> {
    let controller = ObjectRef::new(Resource::DEPLOYMENT, namespace, name);
    let uri = format!("{}?fieldManager={SCALE_MANAGER}", controller.path());
    let body = json!({"spec": {"replicas": 0}}).to_string().into_bytes();
    match connection.call("PATCH", &uri, "application/merge-patch+json", body, CALL_TIMEOUT).await {
        Ok(_) | Err(Failure::NotFound(_)) => Ok(()),
        Err(failure) => Err(CallError { action: "stopped", object: controller, failure }),
    }
}

async fn canaries(connection: &Connection, group: Group, which: Which<'_>) -> Result<Vec<Value>, CallError> {
    let resource = Resource::of(Kind::Canary, group);
    let found = match which {
        Which::All(namespace) => all(connection, resource, namespace).await,
        Which::One(namespace, name) => {
            let object = ObjectRef::new(resource, namespace, name);
            read(connection, &object).await.map(|object| vec![object])
        }
    };
    match found {
        // There is no such object, or its kind is not there.
        Err(CallError { failure: Failure::NotFound(_), .. }) => Ok(Vec::new()),
        found => found,
    }
}

/// Disowns what a Canary has, and takes its finalizer off last: from then on it may be gone.
async fn one(
    connection: &Connection,
    canary: &ObjectRef,
    object: Value,
    belongings: &mut Belongings,
) -> Result<Vec<ObjectRef>, CallError> {
    if !belongings.contains_key(&canary.namespace) {
        let mut here = Vec::new();
        for resource in [Resource::DEPLOYMENT, Resource::SCALER, Resource::SERVICE] {
            for object in all(connection, resource, Some(&canary.namespace)).await? {
                let name = text(&object, "/metadata/name").unwrap_or_default();
                here.push((ObjectRef::new(resource, &canary.namespace, name), object));
            }
        }
        belongings.insert(canary.namespace.clone(), here);
    }
    let mut left = Vec::new();
    for (belonging, found) in belongings.get(&canary.namespace).into_iter().flatten() {
        let disowned = |found: &Value| release::disowned(found, &object);
        if patch(connection, belonging, found.clone(), disowned).await? {
            left.push(belonging.clone());
        }
    }
    patch(connection, canary, object.clone(), |found| release::is_held(found).then(|| release::let_go(found))).await?;
    Ok(left)
}

/// Patches an object until there is nothing to do. False: there never was.
async fn patch(
    connection: &Connection,
    object: &ObjectRef,
    mut found: Value,
    wanted: impl Fn(&Value) -> Option<Value>,
) -> Result<bool, CallError> {
    let mut failure = Failure::Timeout;
    for attempt in 0..MAX_ATTEMPTS {
        let Some(patch) = wanted(&found) else { return Ok(attempt > 0) };
        let uri = format!("{}?fieldManager={MANAGER}", object.path());
        let body = patch.to_string().into_bytes();
        failure = match connection.call("PATCH", &uri, "application/merge-patch+json", body, CALL_TIMEOUT).await {
            Ok(_) => return Ok(true),
            Err(Failure::NotFound(_)) => return Ok(false),
            Err(failure @ Failure::Conflict(_)) => failure,
            Err(failure) => return Err(CallError { action: "released", object: object.clone(), failure }),
        };
        found = match read(connection, object).await {
            Err(CallError { failure: Failure::NotFound(_), .. }) => return Ok(false),
            found => found?,
        };
    }
    Err(CallError { action: "released", object: object.clone(), failure })
}

async fn read(connection: &Connection, object: &ObjectRef) -> Result<Value, CallError> {
    let found = connection.get(&object.path(), CALL_TIMEOUT).await;
    found.map_err(|failure| CallError { action: "read", object: object.clone(), failure })
}

/// Returns all objects of a kind, with what a list leaves out of each.
async fn all(connection: &Connection, resource: Resource, namespace: Option<&str>) -> Result<Vec<Value>, CallError> {
    let (mut objects, mut page) = (Vec::new(), String::new());
    loop {
        let uri = format!("{}?limit={PAGE_SIZE}{page}", resource.path(namespace));
        let listed = connection.get(&uri, CALL_TIMEOUT).await.map_err(|failure| {
            let object = ObjectRef::new(resource, namespace.unwrap_or_default(), "*");
            CallError { action: "read", object, failure }
        })?;
        objects.extend(list(&listed, "/items").iter().cloned().map(|mut object| {
            if let Some(fields) = object.as_object_mut() {
                fields.insert("apiVersion".to_owned(), json!(resource.api_version()));
                fields.insert("kind".to_owned(), json!(resource.kind));
            }
            object
        }));
        match text(&listed, "/metadata/continue").filter(|token| !token.is_empty()) {
            Some(token) => page = format!("&continue={token}"),
            None => return Ok(objects),
        }
    }
}
