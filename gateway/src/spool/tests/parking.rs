use rusqlite::Connection;
use tempfile::TempDir;

use super::super::*;
use super::{event, open, payloads, reopen, soon};

fn parking(event: &PendingEvent, reason: ParkReason) -> Parking {
    Parking {
        id: event.id,
        reason,
        attempted_after: event.attempted_after,
    }
}

fn all() -> ParkedQuery {
    ParkedQuery {
        limit: 100_000,
        max_bytes: usize::MAX,
        sequence: 9,
        ..ParkedQuery::default()
    }
}

/// Reads all parked events, over as many batches as it takes.
async fn parked(spool: &Spool, query: ParkedQuery) -> Vec<PendingEvent> {
    let (mut found, mut query) = (Vec::new(), query);
    loop {
        let batch = spool.parked(query.clone()).await.unwrap();
        found.extend(batch.events);
        match batch.next {
            Some(next) => query.after = Some(next),
            None => return found,
        }
    }
}

fn texts(events: &[PendingEvent]) -> Vec<String> {
    let text = |event: &PendingEvent| String::from_utf8(event.payload.to_vec()).unwrap();
    events.iter().map(text).collect()
}

#[tokio::test]
async fn a_parked_event_lets_the_others_pass_and_stays_across_a_reopen() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    for payload in ["a", "b", "c", "d"] {
        spool.append(event(payload), soon()).await.unwrap();
    }
    let batch = spool.next(4, usize::MAX, 5).await.unwrap();
    let park = [0, 2].map(|number: usize| parking(&batch[number], ParkReason::TooLarge));
    spool.park(park.to_vec()).await.unwrap();
    let spool = reopen(spool, &dir).await;
    assert_eq!(payloads(&spool).await, ["b", "d"]);
    let depth = spool.depth();
    assert_eq!((depth.events(), depth.waiting()), (4, 2));
    assert_eq!(depth.parked().of(ParkReason::TooLarge), 2);
    assert_eq!(texts(&parked(&spool, all()).await), ["a", "c"]);

    let done = spool.next(2, usize::MAX, 5).await.unwrap();
    let done = done.iter().map(|event| event.id).collect();
    spool.delete(done).await.unwrap();
    assert_eq!((spool.depth().events(), spool.depth().waiting()), (2, 0));
    assert_eq!(spool.depth().oldest_age(), None);
    let rest = parked(&spool, all()).await;
    spool
        .delete(rest.iter().map(|event| event.id).collect())
        .await
        .unwrap();
    assert_eq!(spool.depth().parked().total(), 0);
    assert_eq!(spool.depth().events(), 0);
}

#[tokio::test]
async fn an_event_can_be_parked_from_the_start_and_the_reason_can_change() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    let denied = PendingEvent {
        parked: Some(ParkReason::PermissionDenied),
        ..event("denied")
    };
    spool.append(denied, soon()).await.unwrap();
    assert_eq!(spool.depth().waiting(), 0);
    let found = parked(&spool, all()).await;
    let missing = parking(&found[0], ParkReason::SubjectMissing);
    spool.park(vec![missing]).await.unwrap();
    let counts = spool.depth().parked();
    assert_eq!(counts.of(ParkReason::PermissionDenied), 0);
    assert_eq!(counts.of(ParkReason::SubjectMissing), 1);
    let file = Connection::open(dir.path().join("spool.db")).unwrap();
    let reason: String = file
        .query_row("SELECT state FROM event", [], |row| row.get(0))
        .unwrap();
    assert_eq!(reason, "s");
}

#[tokio::test]
async fn parked_events_are_found_by_subject_over_many_stretches_and_count_as_attempted() {
    let dir = TempDir::new().unwrap();
    let spool = Spool::open(
        dir.path(),
        64 << 20,
        SpoolSync::Normal,
        CancellationToken::new(),
    )
    .unwrap();
    let commands = (0..5_000).map(|number| {
        let on_another = number % 1_000 == 999;
        let event = PendingEvent {
            subject: if on_another { "other" } else { "usual" }.into(),
            parked: Some(ParkReason::Refused),
            ..event(&number.to_string())
        };
        spool.append(event, soon())
    });
    for appended in futures_util::future::join_all(commands).await {
        appended.unwrap();
    }
    let others = ParkedQuery {
        except: vec!["usual".to_owned()],
        limit: 2,
        ..all()
    };
    let found = parked(&spool, others.clone()).await;
    assert_eq!(texts(&found), ["999", "1999", "2999", "3999", "4999"]);
    assert_eq!(found[0].attempted_after, None);
    let again = parked(&spool, others).await;
    assert_eq!(again[0].attempted_after, Some(9));
}

#[tokio::test]
async fn a_full_spool_can_park_everything_that_is_in_it() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    while spool.append(event("x"), soon()).await.is_ok() {}
    let batch = spool.next(100_000, usize::MAX, 5).await.unwrap();
    assert!(batch.len() > 1_000);
    let park = batch
        .iter()
        .map(|event| parking(event, ParkReason::SubjectMissing));
    for some in park.collect::<Vec<_>>().chunks(256) {
        spool.park(some.to_vec()).await.unwrap();
    }
    assert_eq!(spool.depth().parked().total(), batch.len());
    // The spool is as full as before.
    let refused = spool.append(event("x"), soon()).await;
    assert_eq!(refused, Err(AppendError::Full));
}

#[tokio::test]
async fn new_parked_events_leave_half_of_the_spool_to_others() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    let payload = "x".repeat(3_000);
    let parked = || PendingEvent {
        parked: Some(ParkReason::SubjectMissing),
        ..event(&payload)
    };
    while spool.append(parked(), soon()).await.is_ok() {}
    let half = spool.depth().max_bytes() / 2;
    let used = spool.depth().used_bytes();
    assert!((half..half + 8 * 4096).contains(&used), "{used}");
    // The same in a group.
    let group = [parked(), event("x"), parked(), event("x")];
    let appended = group.map(|event| spool.append(event, soon()));
    let appended = futures_util::future::join_all(appended).await;
    let full = Err(AppendError::ParkedFull);
    assert_eq!(appended, [full.clone(), Ok(()), full, Ok(())]);
}

#[tokio::test]
async fn the_age_of_what_a_clock_of_tomorrow_left_counts_from_the_start() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    spool.append(event("a"), soon()).await.unwrap();
    spool.close(soon()).await;
    drop(spool);
    let file = Connection::open(dir.path().join("spool.db")).unwrap();
    file.execute("UPDATE event SET spooled_ms = spooled_ms + 86400000", [])
        .unwrap();
    drop(file);
    let spool = open(&dir);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let age = spool.depth().oldest_age().unwrap();
    assert!(
        age > Duration::ZERO && age < Duration::from_secs(60),
        "{age:?}"
    );
}
