//! Notices that another process reads the same consumer: each delivery of a consumer has the next number, whoever gets it.

/// How many gaps in the numbers mean another process. A lost connection, or another leader of the consumer, makes one.
const GAPS: u32 = 3;

/// After how many deliveries in a row earlier gaps no longer count.
const IN_A_ROW: u32 = 100;

/// The deliveries to this process.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// The last one, with the number of the connection over which it came.
    last: Option<(u64, u64)>,
    gaps: u32,
    in_a_row: u32,
}

impl Deliveries {
    /// Adds the delivery with this number, over a connection with this number. Returns how many deliveries were missed before it.
    pub(crate) fn add(&mut self, delivery: u64, connection: u64) -> u64 {
        let before = self.last.replace((delivery, connection));
        let Some((last, _)) = before.filter(|(_, other)| *other == connection) else {
            (self.gaps, self.in_a_row) = (0, 0);
            return 0;
        };
        let missed = delivery.saturating_sub(last.saturating_add(1));
        if missed > 0 {
            (self.gaps, self.in_a_row) = (self.gaps + 1, 0);
        } else {
            self.in_a_row += 1;
        }
        if self.in_a_row >= IN_A_ROW {
            (self.gaps, self.in_a_row) = (0, 0);
        }
        missed
    }

    /// Whether another process gets a part of the deliveries.
    pub(crate) const fn are_shared(&self) -> bool {
        self.gaps >= GAPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(deliveries: impl IntoIterator<Item = (u64, u64)>) -> (u64, bool) {
        let mut all = Deliveries::default();
        let missed = deliveries
            .into_iter()
            .map(|(delivery, connection)| all.add(delivery, connection))
            .sum();
        (missed, all.are_shared())
    }

    #[test]
    fn every_other_delivery_is_missed_where_two_processes_read() {
        let odd = |most: u64| (1..=most).map(|number| (2 * number + 1, 1));
        assert_eq!(added(odd(3)), (2, false));
        assert_eq!(added(odd(4)), (3, true));
    }

    #[test]
    fn what_is_lost_with_a_connection_is_no_sign_of_another_process() {
        let of_four = (1..=4).map(|connection| (10 * connection, connection));
        assert_eq!(added(of_four), (0, false));
        // A gap every hundred deliveries, as changes of the leader make them.
        let in_a_row = (0..1000).map(|number| (number + 5 * (number / 101), 1));
        assert_eq!(added(in_a_row), (45, false));
        assert_eq!(added([(7, 1), (3, 1), (4, 1)]), (0, false));
    }
}
