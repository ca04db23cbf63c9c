//! Watches of the real server: what every mirror of the agent lives on.

use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use margay_crds::IPAMBlock;
use margay_ipam::NodeBlock;

fn claim(cidr: &str) -> IPAMBlock {
    NodeBlock::claim(cidr.parse().unwrap(), "watched")
        .object()
        .clone()
}

/// A watch from a version that the server has forgotten is told so (410), and does not just wait.
pub async fn a_forgotten_version_is_gone(client: Client) {
    let api: Api<IPAMBlock> = Api::all(client);
    let parameters = WatchParams::default().timeout(20);
    let code = match api.watch(&parameters, "1").await {
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => panic!("{other}"),
        Ok(events) => {
            let first = Box::pin(events).next().await;
            match first {
                Some(Ok(WatchEvent::Error(status))) => status.code,
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(code, 410);
}

/// The state first, then every change, in order.
pub async fn a_watcher_sees_every_change(client: Client) {
    let api: Api<IPAMBlock> = Api::all(client);
    let cidrs = ["10.6.0.0/26", "10.6.0.64/26"];
    let before = api
        .create(&PostParams::default(), &claim(cidrs[0]))
        .await
        .unwrap();
    let mut events = watcher(api.clone(), watcher::Config::default()).boxed();
    let mut there = Vec::new();
    loop {
        match next(&mut events).await {
            Event::Init => {}
            Event::InitApply(block) => there.push(block.spec.cidr),
            Event::InitDone => break,
            other => panic!("before the end of the list: {other:?}"),
        }
    }
    assert!(there.contains(&before.spec.cidr));
    let mut changed = before.clone();
    changed.spec.sequence = 3;
    api.replace(
        &before.metadata.name.clone().unwrap(),
        &PostParams::default(),
        &changed,
    )
    .await
    .unwrap();
    let after = api
        .create(&PostParams::default(), &claim(cidrs[1]))
        .await
        .unwrap();
    for block in [&before, &after] {
        let name = block.metadata.name.clone().unwrap();
        api.delete(&name, &DeleteParams::default()).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(match next(&mut events).await {
            Event::Apply(block) => format!("{} {}", block.spec.cidr, block.spec.sequence),
            Event::Delete(block) => format!("{} gone", block.spec.cidr),
            other => panic!("{other:?}"),
        });
    }
    let expected = [
        "10.6.0.0/26 3",
        "10.6.0.64/26 0",
        "10.6.0.0/26 gone",
        "10.6.0.64/26 gone",
    ];
    assert_eq!(seen, expected);
}

async fn next(
    events: &mut (impl futures::Stream<Item = Result<Event<IPAMBlock>, watcher::Error>> + Unpin),
) -> Event<IPAMBlock> {
    let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
    event.unwrap().unwrap().unwrap()
}
