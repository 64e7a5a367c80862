//! What a machine consists of, as far as Google Cloud bills it, and how the SKUs of each part are described.
//!
//! All of it is data: see `README.md` beside this file for where it came from.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use serde::Deserialize;

use crate::model::{Accelerator, Offer};

/// Something that is billed by its own SKU in every region.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Component {
    /// `gce.compute.cpu.n1`.
    pub(super) name: String,
    pub(super) kind: Kind,
    on_demand: Vec<Wording>,
    spot: Vec<Wording>,
}

/// What a component is, and so what its price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// An hour of a vCPU.
    Core,
    /// An hour of a GiB of memory.
    Memory,
    /// An hour of an accelerator.
    Accelerator,
    /// An hour of a GiB of local SSD.
    LocalSsd,
}

/// How the SKUs of a component are described.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Wording {
    pub(super) resource_family: String,
    pub(super) resource_group: String,
    /// The whole description; `%` stands for any text.
    pub(super) description_like: String,
}

/// So much of a component.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) component: &'static Component,
    pub(super) quantity: f64,
}

impl Component {
    pub(super) fn wordings(&self, offer: Offer) -> &[Wording] {
        match offer {
            Offer::OnDemand => &self.on_demand,
            Offer::Spot => &self.spot,
        }
    }
}

impl Kind {
    fn of(component: &str) -> Option<Kind> {
        const KINDS: [(&str, Kind); 4] = [
            ("gce.compute.cpu.", Kind::Core),
            ("gce.compute.ram.", Kind::Memory),
            ("gce.compute.gpu.", Kind::Accelerator),
            ("gce.storage.ssd.local", Kind::LocalSsd),
        ];
        KINDS.iter().find(|(prefix, _)| component.starts_with(prefix)).map(|(_, kind)| *kind)
    }
}

impl Wording {
    pub(super) fn describes(&self, description: &str) -> bool {
        like(&self.description_like, description)
    }
}

/// The parts that `instance_type` with `accelerator` is billed for.
///
/// # Errors
///
/// What is not known, and the closest name that is.
pub(super) fn parts(instance_type: &str, accelerator: Option<&Accelerator>) -> Result<Vec<Part>, String> {
    let (row, custom) = match TABLES.machines.get(instance_type) {
        Some(row) => (row.clone(), false),
        None => (custom(instance_type)?.ok_or_else(|| unknown_machine(instance_type))?, true),
    };
    let mut parts = vec![
        part(instance_type, "gce.compute.cpu.", &row.series, row.vcpus)?,
        part(instance_type, "gce.compute.ram.", &row.series, row.memory_gib)?,
        part(instance_type, "gce.compute.gpu.", &row.accelerator, row.accelerators.unwrap_or(0.0))?,
        part(instance_type, "gce.storage.ssd.", &row.local_ssd, row.local_ssd_gib.unwrap_or(0.0))?,
    ];
    if let Some(accelerator) = accelerator {
        // An accelerator attaches to a series, custom or not.
        let series = if custom { row.series.trim_end_matches(".custom") } else { &row.series };
        parts.push(attached(instance_type, series, &row, accelerator)?);
    }
    Ok(parts.into_iter().flatten().collect())
}

/// Whether the tables know `instance_type`, and `accelerator` as something it has or can have.
///
/// # Errors
///
/// One sentence: what is not known, and the closest name that is.
pub fn known_machine(instance_type: &str, accelerator: Option<&Accelerator>) -> Result<(), String> {
    parts(instance_type, accelerator).map(|_| ())
}

#[derive(Clone, Debug, Deserialize)]
struct MachineRow {
    machine_type: String,
    series: String,
    vcpus: f64,
    memory_gib: f64,
    accelerator: String,
    accelerators: Option<f64>,
    local_ssd: String,
    local_ssd_gib: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct WordingRow {
    component: String,
    resource_family: String,
    resource_group: String,
    description_like: String,
}

#[derive(Debug, Deserialize)]
struct AcceleratorRow {
    kind: String,
    accelerator: String,
    attaches_to: String,
}

struct Tables {
    machines: BTreeMap<String, MachineRow>,
    accelerators: BTreeMap<String, AcceleratorRow>,
    components: HashMap<String, Component>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
    machines: rows::<MachineRow>(include_str!("gcp_machine_types.csv"))
        .map(|row| (row.machine_type.clone(), row))
        .collect(),
    accelerators: rows::<AcceleratorRow>(include_str!("gcp_accelerators.csv"))
        .map(|row| (row.kind.clone(), row))
        .collect(),
    components: components(include_str!("gcp_sku_descriptions.csv")),
});

/// The rows of a table that is part of the program. A test reads all of them, so a bad one never leaves the house.
fn rows<T: for<'de> Deserialize<'de>>(table: &'static str) -> impl Iterator<Item = T> {
    csv::Reader::from_reader(table.as_bytes())
        .into_deserialize()
        .map(|row| row.expect("the tables of the program are well formed"))
}

fn components(table: &'static str) -> HashMap<String, Component> {
    let mut components: HashMap<String, Component> = HashMap::new();
    for row in rows::<WordingRow>(table) {
        let (name, offer) = match row.component.strip_suffix(".spot") {
            Some(name) => (name, Offer::Spot),
            None => (row.component.as_str(), Offer::OnDemand),
        };
        let kind = Kind::of(name).expect("the tables of the program are well formed");
        let component = components.entry(name.to_owned()).or_insert_with(|| Component {
            name: name.to_owned(),
            kind,
            on_demand: Vec::new(),
            spot: Vec::new(),
        });
        let wordings = match offer {
            Offer::OnDemand => &mut component.on_demand,
            Offer::Spot => &mut component.spot,
        };
        wordings.push(Wording {
            resource_family: row.resource_family,
            resource_group: row.resource_group,
            description_like: row.description_like,
        });
    }
    components
}

fn component(name: &str) -> Option<&'static Component> {
    TABLES.components.get(name)
}

/// `quantity` of a component; `None` where there is nothing of it.
fn part(instance_type: &str, group: &str, name: &str, quantity: f64) -> Result<Option<Part>, String> {
    if quantity == 0.0 || name.is_empty() {
        return Ok(None);
    }
    match component(&format!("{group}{name}")) {
        Some(component) => Ok(Some(Part { component, quantity })),
        None => Err(format!("{instance_type} has a part '{group}{name}' whose SKUs are not known")),
    }
}

/// A machine whose size is in its name: `n2-custom-4-16384`, or `custom-4-16384` for series n1. `None` if it is no such name.
fn custom(instance_type: &str) -> Result<Option<MachineRow>, String> {
    let (series, size) = match instance_type.strip_prefix("custom-") {
        Some(size) => ("n1", size),
        None => match instance_type.split_once("-custom-") {
            Some(found) => found,
            None => return Ok(None),
        },
    };
    let form = || {
        format!(
            "{instance_type} is not a custom machine type whose price is known: expected SERIES-custom-VCPUS-MIB, such as \
             n2-custom-4-16384, with a series of {}, and without extended memory",
            list(TABLES.components.keys().filter_map(|name| {
                name.strip_prefix("gce.compute.cpu.").and_then(|name| name.strip_suffix(".custom"))
            }))
        )
    };
    let series = format!("{series}.custom");
    let (vcpus, mib) = size.split_once('-').ok_or_else(form)?;
    let (Ok(vcpus), Ok(mib)) = (vcpus.parse::<u32>(), mib.parse::<u32>()) else { return Err(form()) };
    if vcpus == 0 || mib == 0 || component(&format!("gce.compute.cpu.{series}")).is_none() {
        return Err(form());
    }
    Ok(Some(MachineRow {
        machine_type: instance_type.to_owned(),
        series,
        vcpus: f64::from(vcpus),
        memory_gib: f64::from(mib) / 1024.0,
        accelerator: String::new(),
        accelerators: None,
        local_ssd: String::new(),
        local_ssd_gib: None,
    }))
}

/// What `accelerator` adds to `row`; `None` if the machine comes with it.
fn attached(
    instance_type: &str,
    series: &str,
    row: &MachineRow,
    accelerator: &Accelerator,
) -> Result<Option<Part>, String> {
    let Accelerator { kind, count } = accelerator;
    let known = TABLES.accelerators.get(kind).ok_or_else(|| {
        let names = TABLES.accelerators.keys();
        match closest(kind, names.clone()) {
            Some(name) => format!("accelerator '{kind}' is not known: did you mean '{name}'?"),
            None => format!("accelerator '{kind}' is not known: expected one of {}", list(names)),
        }
    })?;
    if let Some(bundled) = row.accelerators {
        // A fraction of an accelerator is shared: no count in a configuration equals it.
        let same = known.accelerator == row.accelerator && (bundled < 1.0 || bundled == f64::from(*count));
        return match same {
            true => Ok(None),
            false => Err(format!(
                "{instance_type} comes with {bundled} of {}, not with {count} of {kind}: leave the accelerator out",
                kind_of(&row.accelerator)
            )),
        };
    }
    if known.attaches_to.is_empty() || !known.attaches_to.split(' ').any(|name| name == series) {
        return Err(match known.attaches_to.as_str() {
            "" => format!(
                "{kind} cannot be attached to {instance_type}: it comes only with its own machine types, such as {}",
                TABLES
                    .machines
                    .values()
                    .find(|row| row.accelerator == known.accelerator)
                    .map_or("none that is known", |row| row.machine_type.as_str())
            ),
            series => {
                format!("{kind} cannot be attached to {instance_type}: only to machines of series {series}")
            }
        });
    }
    if *count == 0 {
        return Err(format!(
            "0 of {kind} attached to {instance_type}: expected at least 1, or no accelerator"
        ));
    }
    part(instance_type, "gce.compute.gpu.", &known.accelerator, f64::from(*count))
}

fn kind_of(accelerator: &str) -> &str {
    TABLES
        .accelerators
        .values()
        .find(|row| row.accelerator == accelerator)
        .map_or(accelerator, |row| row.kind.as_str())
}

fn unknown_machine(instance_type: &str) -> String {
    match closest(instance_type, TABLES.machines.keys()) {
        Some(name) => format!(
            "machine type '{instance_type}' is not in the table of Google Cloud's machine types: did you mean '{name}'?"
        ),
        None => format!("machine type '{instance_type}' is not in the table of Google Cloud's machine types"),
    }
}

/// The name that a typing mistake was probably meant for.
fn closest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    known
        .map(|known| (strsim::jaro_winkler(name, known), known.as_str()))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

fn list<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    let mut names: Vec<String> = names.map(|name| name.as_ref().to_owned()).collect();
    names.sort_unstable();
    names.join(", ")
}

/// Whether `text` as a whole is `pattern`, where `%` stands for any text.
fn like(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('%') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    if rest.is_empty() {
        return true;
    }
    text.char_indices().any(|(at, _)| like(rest, &text[at..])) || like(rest, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantities(instance_type: &str, accelerator: Option<(&str, u32)>) -> Vec<(&'static str, f64)> {
        let accelerator = accelerator.map(|(kind, count)| Accelerator { kind: kind.into(), count });
        let parts = parts(instance_type, accelerator.as_ref()).unwrap();
        parts.iter().map(|part| (part.component.name.as_str(), part.quantity)).collect()
    }

    fn refusal(instance_type: &str, accelerator: Option<(&str, u32)>) -> String {
        let accelerator = accelerator.map(|(kind, count)| Accelerator { kind: kind.into(), count });
        known_machine(instance_type, accelerator.as_ref()).unwrap_err()
    }

    #[test]
    fn every_machine_of_the_table_consists_of_parts_that_have_skus_on_demand_and_spot() {
        assert!(TABLES.machines.len() > 500);
        for (name, row) in &TABLES.machines {
            let parts = parts(name, None).unwrap();
            assert!(parts.iter().any(|part| part.component.kind == Kind::Core), "{name}");
            assert_eq!(parts.iter().any(|part| part.component.kind == Kind::Memory), row.memory_gib > 0.0);
            for Part { component, quantity } in parts {
                assert!(quantity > 0.0, "{name}");
                for offer in [Offer::OnDemand, Offer::Spot] {
                    assert!(!component.wordings(offer).is_empty(), "{name}: {} {offer}", component.name);
                }
            }
        }
    }

    #[test]
    fn every_accelerator_is_one_that_has_skus_or_comes_with_a_machine() {
        for row in TABLES.accelerators.values() {
            let name = format!("gce.compute.gpu.{}", row.accelerator);
            assert!(component(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_machine_is_the_sum_of_its_parts() {
        assert_eq!(
            quantities("n1-standard-8", Some(("nvidia-tesla-t4", 2))),
            [("gce.compute.cpu.n1", 8.0), ("gce.compute.ram.n1", 30.0), ("gce.compute.gpu.t4", 2.0)]
        );
        assert_eq!(
            quantities("a2-ultragpu-1g", Some(("nvidia-a100-80gb", 1))),
            [
                ("gce.compute.cpu.a2", 12.0),
                ("gce.compute.ram.a2", 170.0),
                ("gce.compute.gpu.a100.80gb", 1.0),
                ("gce.storage.ssd.local", 375.0)
            ]
        );
        assert_eq!(quantities("e2-medium", None), [("gce.compute.cpu.e2", 1.0), ("gce.compute.ram.e2", 4.0)]);
        assert_eq!(quantities("g1-small", None), [("gce.compute.cpu.g1", 1.0)]);
        assert_eq!(
            quantities("g4-standard-6", Some(("nvidia-rtx-pro-6000", 1)))[2],
            ("gce.compute.gpu.rtx6000", 0.125)
        );
    }

    #[test]
    fn a_custom_machine_says_its_size_in_its_name() {
        assert_eq!(
            quantities("n2-custom-6-20480", None),
            [("gce.compute.cpu.n2.custom", 6.0), ("gce.compute.ram.n2.custom", 20.0)]
        );
        assert_eq!(
            quantities("custom-4-5120", Some(("nvidia-tesla-t4", 1))),
            [
                ("gce.compute.cpu.n1.custom", 4.0),
                ("gce.compute.ram.n1.custom", 5.0),
                ("gce.compute.gpu.t4", 1.0)
            ]
        );
        for bad in
            ["n2-custom-6", "n2-custom-0-20480", "n2-custom-6-20480-ext", "c3-custom-4-16384", "custom-x-1"]
        {
            assert!(refusal(bad, None).contains("SERIES-custom-VCPUS-MIB"), "{bad}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_closest_name() {
        assert_eq!(
            refusal("g2-standart-8", None),
            "machine type 'g2-standart-8' is not in the table of Google Cloud's machine types: did you mean 'g2-standard-8'?"
        );
        assert_eq!(
            refusal("p5.48xlarge", None),
            "machine type 'p5.48xlarge' is not in the table of Google Cloud's machine types"
        );
        assert_eq!(
            refusal("n1-standard-8", Some(("nvidia-tesla-t5", 1))),
            "accelerator 'nvidia-tesla-t5' is not known: did you mean 'nvidia-tesla-t4'?"
        );
        assert_eq!(
            refusal("n2-standard-8", Some(("nvidia-tesla-t4", 1))),
            "nvidia-tesla-t4 cannot be attached to n2-standard-8: only to machines of series n1"
        );
        assert_eq!(
            refusal("n1-standard-8", Some(("nvidia-l4", 1))),
            "nvidia-l4 cannot be attached to n1-standard-8: it comes only with its own machine types, such as g2-standard-12"
        );
        assert_eq!(
            refusal("g2-standard-8", Some(("nvidia-l4", 2))),
            "g2-standard-8 comes with 1 of nvidia-l4, not with 2 of nvidia-l4: leave the accelerator out"
        );
        assert!(refusal("n1-standard-8", Some(("nvidia-tesla-t4", 0))).contains("at least 1"));
    }

    #[test]
    fn a_pattern_is_anchored_at_both_ends() {
        assert!(like("A2 Instance%", "A2 Instance Core running in Americas"));
        assert!(!like("A2 Instance%", "Spot Preemptible A2 Instance Core running in Americas"));
        assert!(!like("Nvidia Tesla A100 GPU running%", "Nvidia Tesla A100 80GB GPU running in Iowa"));
        assert!(like("SSD backed Local Storage", "SSD backed Local Storage"));
        assert!(!like(
            "SSD backed Local Storage",
            "SSD backed Local Storage attached to Spot Preemptible VMs"
        ));
        assert!(like("Storage%in%Paris", "Storage PD in Île-de-France in Paris"));
        assert!(!like("Storage%in%Paris", "Storage PD in Parisi"));
        assert!(like("%", ""));
    }
}
