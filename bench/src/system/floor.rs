use tokio::net::TcpStream;

use super::{Nats, Place, Role, System, SystemName, wait_until_ready};
use crate::process::Process;

pub(super) async fn axum(place: &mut Place) -> anyhow::Result<System> {
    let address = place.ports.free()?;
    let listen = address.to_string();
    let process = listening(place.part("axum", &["bare", "--listen", &listen])?, &listen).await?;
    Ok(System {
        name: SystemName::Axum,
        address,
        admin: None,
        nats: None,
        parts: vec![(Role::Gateway, process)],
        sink: None,
    })
}

pub(super) async fn floor(place: &mut Place, event_extra: usize) -> anyhow::Result<System> {
    let nats = Nats::start(place, "floor").await?;
    let decider_at = place.ports.free()?.to_string();
    let decider = place.part("floor-decider", &["floor-decider", "--listen", &decider_at])?;
    let decider = listening(decider, &decider_at).await?;
    let address = place.ports.free()?;
    let gateway = place.part(
        "floor-gateway",
        &[
            "floor-gateway",
            "--listen",
            &address.to_string(),
            "--decider",
            &format!("http://{decider_at}"),
            "--nats",
            &nats.url(),
            "--event-extra",
            &event_extra.to_string(),
        ],
    )?;
    let gateway = listening(gateway, &address.to_string()).await?;
    Ok(System {
        name: SystemName::Floor,
        address,
        admin: None,
        nats: Some(nats.url()),
        parts: vec![
            (Role::Gateway, gateway),
            (Role::Decider, decider),
            (Role::Nats, nats.process),
        ],
        sink: None,
    })
}

async fn listening(mut process: Process, address: &str) -> anyhow::Result<Process> {
    wait_until_ready(&mut process, async || {
        TcpStream::connect(address)
            .await
            .map(drop)
            .map_err(Into::into)
    })
    .await?;
    Ok(process)
}
