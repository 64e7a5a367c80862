//! What is assumed of a backend that no notice was received for.

use crate::model::Cloud;

/// Interruptions in an hour of a spot node, as long as nothing is known about a backend itself.
///
/// Computed from recordings of how many spot nodes could be held in a zone (those of the SkyServe paper, EuroSys 2025; kept in
/// `tests/data/spot_availability_*.csv`, from which a test computes these figures again): the nodes lost over the hours of the
/// nodes held, all zones of a cloud together.
///
/// | cloud | machines | node-hours | nodes lost | per node-hour |
/// | --- | --- | --- | --- | --- |
/// | AWS | 4 and 16 p3.2xlarge in 6 zones | 9,234 | 3,569 | 0.387 |
/// | Google Cloud | 4 machines of 8 A100 in 6 zones | 341 | 76 | 0.223 |
/// | other | both together | 9,575 | 3,645 | 0.381 |
///
/// Where the number of nodes falls, each node less counts as one interruption: it is what someone who held all of them lost.
/// Someone who held fewer may have lost none of his; what fell and rose again between two looks (150 to 300 s) is not seen.
/// A rise is none. All machines recorded are sought after, so for plain ones the figures are too high, and the recording
/// of Google Cloud covers 32 hours: who knows better configures the rate.
pub fn assumed_per_node_hour(cloud: Cloud) -> f64 {
    match cloud {
        Cloud::Aws => 0.387,
        Cloud::Gcp => 0.223,
        Cloud::Other => 0.381,
    }
}

/// How much the assumed rate weighs beside what was observed: as much as observing the backend for so many node-hours.
///
/// Credibility theory (the Bühlmann-Straub model) says: the variance within a zone over the variance between zones. Within a
/// zone of the recordings above, the nodes lost in a node-hour have a variance of 4.38 (the squares of the drops over the
/// node-hours: nodes are lost many at a time, so it is more than ten times that of a Poisson process); the rates of the 11
/// zones that held nodes have one of 0.254. That is 17 node-hours, rounded up. Weighing the zones by their node-hours gives
/// 285, because then two zones that are alike count most. The smaller figure is the better fault: machines differ more
/// than these few do. Too small a weight lets the rate swing for some hours after a notice, too large a one keeps a calm
/// backend dear for weeks.
pub(super) const ASSUMED_WEIGHT_NODE_HOURS: f64 = 20.0;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What was recorded of one zone.
    #[derive(Default)]
    struct Zone {
        last: Option<(f64, f64)>,
        node_hours: f64,
        lost: f64,
        lost_squared: f64,
    }

    impl Zone {
        fn see(&mut self, seconds: f64, nodes: f64) {
            if let Some((since, held)) = self.last.replace((seconds, nodes)) {
                self.node_hours += held * (seconds - since) / 3600.0;
                let drop = f64::max(held - nodes, 0.0);
                self.lost += drop;
                self.lost_squared += drop * drop;
            }
        }

        fn rate(&self) -> f64 {
            self.lost / self.node_hours
        }
    }

    const AWS: [&str; 2] = [
        include_str!("../../../tests/data/spot_availability_aws1.csv"),
        include_str!("../../../tests/data/spot_availability_aws2.csv"),
    ];
    const GCP: [&str; 1] = [include_str!("../../../tests/data/spot_availability_gcp1.csv")];

    /// The zones of these recordings, each for itself, as far as they ever held a node.
    fn zones<'a>(recordings: impl IntoIterator<Item = &'a &'a str>) -> Vec<Zone> {
        let mut all = Vec::new();
        for text in recordings {
            let mut zones: BTreeMap<String, Zone> = BTreeMap::new();
            for row in csv::Reader::from_reader(text.as_bytes()).into_records() {
                let row = row.unwrap();
                let number = |column: usize| row[column].parse::<f64>().unwrap();
                zones.entry(row[3].into()).or_default().see(number(0), number(5));
            }
            all.extend(zones.into_values().filter(|zone| zone.node_hours > 0.0));
        }
        all
    }

    fn sum(zones: &[Zone], of: impl Fn(&Zone) -> f64) -> f64 {
        zones.iter().map(of).sum()
    }

    #[test]
    fn the_assumed_rates_are_those_of_the_recordings() {
        let table = [
            (Cloud::Aws, zones(&AWS), 9_234.0, 3_569.0),
            (Cloud::Gcp, zones(&GCP), 341.0, 76.0),
            (Cloud::Other, zones(AWS.iter().chain(&GCP)), 9_575.0, 3_645.0),
        ];
        for (cloud, zones, node_hours, lost) in table {
            let (held, gone) = (sum(&zones, |zone| zone.node_hours), sum(&zones, |zone| zone.lost));
            assert_eq!((held.round(), gone), (node_hours, lost), "{cloud}");
            let rate = gone / held;
            assert!((assumed_per_node_hour(cloud) - rate).abs() < 0.0005, "{cloud}: {rate}");
        }
    }

    #[test]
    fn the_weight_is_that_of_the_recordings() {
        let zones = zones(AWS.iter().chain(&GCP));
        let node_hours = sum(&zones, |zone| zone.node_hours);
        let within = sum(&zones, |zone| zone.lost_squared) / node_hours;
        let count = zones.len() as f64;
        let mean = sum(&zones, Zone::rate) / count;
        let between = sum(&zones, |zone| (zone.rate() - mean).powi(2)) / (count - 1.0);
        assert_eq!((zones.len(), (within * 100.0).round(), (between * 1000.0).round()), (11, 438.0, 254.0));
        assert_eq!((within / between).round(), 17.0);

        // The unbiased estimate of Bühlmann and Straub, each zone weighed by its node-hours.
        let pooled = sum(&zones, |zone| zone.lost) / node_hours;
        let spread = sum(&zones, |zone| zone.node_hours * (zone.rate() - pooled).powi(2));
        let room = node_hours - sum(&zones, |zone| zone.node_hours.powi(2)) / node_hours;
        let weighed = (spread - (count - 1.0) * within) / room;
        assert_eq!((within / weighed).round(), 285.0);
    }
}
