//! What the demo shows beside its tables.

use anyhow::Result;
use sg_userspace::resolve::Resolved;

use super::enforcer::Enforcer;
use super::topology::Topology;

/// Shows who is where, and which groups are enforced on them.
pub(crate) fn network(resolved: &Resolved, topology: &Topology) {
    println!("network namespaces, each on a link of its own to a router:");
    for node in &topology.nodes {
        let groups = resolved.interfaces.get(&node.name).map(|interface| {
            let names: Vec<String> = interface.groups.iter().map(ToString::to_string).collect();
            format!("groups {}", names.join(", "))
        });
        println!(
            "  {:16}  {:12}  {:16}  {}",
            node.namespace,
            node.address(false).to_string(),
            node.address(true).to_string(),
            groups.as_deref().unwrap_or("nothing enforced")
        );
    }
    println!();
}

/// Shows counters and connections of an interface.
///
/// # Errors
/// If sgctl does not tell them.
pub(crate) fn figures(enforcer: &Enforcer, interface: &str) -> Result<()> {
    println!("\nsgctl stats {interface}    (packets and flows other than 0)");
    for line in enforcer.printed(&["stats", interface])?.lines() {
        if !line.ends_with(": 0") && !line.contains("_bytes: ") {
            println!("{line}");
        }
    }
    println!("\nsgctl ct list --interface {interface}    (established ones)");
    let flows = enforcer.printed(&["ct", "list", "--interface", interface])?;
    for line in flows.lines().filter(|line| line.contains(" established ")) {
        println!("{line}");
    }
    Ok(())
}

/// Says how to look around in a demo that stays.
pub(crate) fn surroundings(enforcer: &Enforcer, topology: &Topology) {
    let sgctl = enforcer.shown();
    println!(
        "\nkept: the namespaces stay, and the agent follows what is written to {}. As root:",
        enforcer.places.files
    );
    for node in &topology.nodes {
        println!("  ip netns exec {} bash", node.namespace);
    }
    for arguments in ["status", "stats", "ct list"] {
        println!("  {sgctl} {arguments}");
    }
    println!("`cargo xtask run --down` removes it all\n");
}

/// Shows text of somebody else's.
pub(crate) fn indented(text: &str) {
    for line in text.lines() {
        println!("  {line}");
    }
}
