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

/// The plain floor or, on one thread for each process, the lean one.
pub(super) async fn floor(
    place: &mut Place,
    event_extra: usize,
    lean: bool,
) -> anyhow::Result<System> {
    let (name, files, flag) = match lean {
        true => (SystemName::Lean, "lean", Some("--lean")),
        false => (SystemName::Floor, "floor", None),
    };
    let nats = Nats::start(place, files).await?;
    let decider_at = place.ports.free()?.to_string();
    let mut arguments = vec!["floor-decider", "--listen", &decider_at];
    arguments.extend(flag);
    let decider = place.part(&format!("{files}-decider"), &arguments)?;
    let decider = listening(decider, &decider_at).await?;
    let address = place.ports.free()?;
    let (listen, url) = (address.to_string(), format!("http://{decider_at}"));
    let (nats_url, event_extra) = (nats.url(), event_extra.to_string());
    let mut arguments = vec!["floor-gateway", "--listen", &listen, "--decider", &url];
    arguments.extend(["--nats", &nats_url, "--event-extra", &event_extra]);
    arguments.extend(flag);
    let gateway = place.part(&format!("{files}-gateway"), &arguments)?;
    let gateway = listening(gateway, &address.to_string()).await?;
    Ok(System {
        name,
        address,
        admin: None,
        nats: Some(nats_url),
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
