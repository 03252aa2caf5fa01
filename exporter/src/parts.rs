//! What this build is made of: the probes and sinks that a configuration may name.

use netsonde_config::{Known, Part};
use netsonde_framework::Catalogue;
use netsonde_probes::os::Host;

/// Every probe of this build.
pub fn catalogue(host: &Host) -> Catalogue {
    // For tests: see `Kernel::without`.
    let without = std::env::var("NETSONDE_WITHOUT").unwrap_or_default();
    let kernel = netsonde_probes_ebpf::runtime::Kernel::new(host.is_live()).without(&without);
    Catalogue::default().with(netsonde_probes::SPECS, host).with(netsonde_probes_ebpf::SPECS, &kernel)
}

/// The names and settings that a configuration may use.
pub fn known(catalogue: &Catalogue) -> Known {
    let probes = catalogue.probes().map(|info| Part {
        name: info.name,
        aliases: info.aliases,
        default_on: info.default_on,
        about: info.about,
        schema: (info.settings)(),
    });
    let sinks = netsonde_sinks::SPECS.iter().map(|spec| Part {
        name: spec.name,
        aliases: &[],
        default_on: spec.default_on,
        about: spec.about,
        schema: (spec.settings)(),
    });
    Known { probes: probes.collect(), sinks: sinks.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let (host, _) = Host::new(netsonde_probes::os::Paths::default()).expect("this machine has a /proc");
        let remarks = catalogue(&host).lint();
        assert!(remarks.is_empty(), "{remarks:#?}");
    }
}
