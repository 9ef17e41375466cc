//! `--dry-run`: what would be done now, in words. Changes nothing: no target, no file, no Node, and sends no datagram.

use std::{collections::BTreeSet, fmt::Write as _};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, api::ListParams};

use super::{
    NetconsoleError, chain,
    configfs::{Configfs, module},
    endpoints, keeper,
    path::{self, Tables},
    plan::{self, Endpoint, Identity, Receiver, Wanted},
    root,
    service::{self, Start},
};
use crate::config::netconsole::NetconsoleConfig;

/// What would be done, a line each. Blocks.
///
/// # Errors
/// If that cannot be found out.
pub fn preview(start: &Start) -> Result<String, NetconsoleError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NetconsoleError::Runtime)?;
    let (endpoints, node) = runtime.block_on(endpoints(start))?;
    let tables = Tables::open()?;
    let receivers = keeper::choose(&node, &endpoints, &tables);
    let mut page = format!("node {node}: {} of {} endpoints chosen\n", receivers.len(), endpoints.len());
    let wanted: Vec<_> = receivers.iter().map(|one| wanted(one, &start.config, &tables, &mut page)).collect();
    let standing = match module::provide(root(), false) {
        Ok(directory) => Configfs::new(directory).standing()?,
        Err(error) => {
            line(&mut page, &format!("netconsole: {}", chain(&error)));
            Vec::new()
        }
    };
    for one in &standing {
        let state = if one.enabled { "enabled" } else { "disabled" };
        let to = one.target.as_ref().map(ToString::to_string).unwrap_or_default();
        line(&mut page, &format!("stands: {} {state} {to}", one.name));
    }
    // Its secret is not looked at: userdata that another start wrote counts as right.
    let identity = Identity { node, boot: String::new(), secret: String::new() };
    let plan = plan::plan(&wanted, &standing, &identity);
    plan.clear.iter().for_each(|name| line(&mut page, &format!("would remove: {name}")));
    plan.make.iter().for_each(|(name, target)| line(&mut page, &format!("would make: {name} {target}")));
    plan.retire.iter().for_each(|name| line(&mut page, &format!("would then remove: {name}")));
    if plan.clear.len() + plan.make.len() + plan.retire.len() == 0 {
        line(&mut page, "would leave the targets as they are");
    }
    Ok(page)
}

fn line(page: &mut String, text: &str) {
    // Writing to a `String` cannot fail.
    writeln!(page, "{text}").ok();
}

fn wanted(receiver: &Receiver, config: &NetconsoleConfig, tables: &Tables, page: &mut String) -> Wanted {
    let local_port = u16::try_from(config.targets.local_port).unwrap_or_default();
    let way = path::find(tables, &receiver.addresses, local_port, &mut BTreeSet::new());
    let place = receiver.node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
    let told = match &way {
        Ok(way) => way.target.to_string(),
        Err(error) => {
            format!("{}: {}", receiver.addresses.first().map(ToString::to_string).unwrap_or_default(), chain(error))
        }
    };
    line(page, &format!("receiver{place}: {told}"));
    Wanted { addresses: receiver.addresses.clone(), target: way.ok().map(|way| way.target) }
}

async fn endpoints(start: &Start) -> Result<(Vec<Endpoint>, String), NetconsoleError> {
    let config = &start.config;
    let (client, node) = service::reach(config, start.kubeconfig.clone()).await?;
    let fixed: Vec<_> = config.receivers.fixed.iter().copied().map(Endpoint::fixed).collect();
    let Some(client) = client.filter(|_| fixed.is_empty()) else { return Ok((fixed, node)) };
    let service = &config.receivers.service;
    let api: Api<EndpointSlice> = Api::namespaced(client, &service.namespace);
    let params = ListParams::default().labels(&endpoints::selector(service)).limit(endpoints::MAX_SLICES);
    let slices = api.list(&params).await.map_err(|error| NetconsoleError::Endpoints(Box::new(error)))?;
    Ok((slices.iter().flat_map(|slice| endpoints::of_slice(slice, &service.port)).collect(), node))
}
