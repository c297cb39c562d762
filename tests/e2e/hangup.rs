//! SIGHUP: files are read again, and nothing ends.

use std::time::Duration;

use importguard_tests::{Binary, Service, Settings};

#[tokio::test]
async fn sighup_has_files_read_again_and_ends_nothing() {
    for binary in [Binary::Gateway, Binary::Decider, Binary::AllInOne] {
        let mut service = match binary {
            Binary::Gateway => Service::gateway(Settings::new()).await,
            Binary::Decider => Service::decider(Settings::new()).await,
            _ => Service::all_in_one(Settings::new()).await,
        };
        for _ in 0..2 {
            service.sighup();
            service.tells(&["SIGHUP received"]).await;
        }
        service.admin("/livez").await.unwrap();
        assert!(service.terminate(Duration::from_secs(20)).await.success());
    }
}

#[tokio::test]
async fn nor_does_it_end_a_process_that_has_just_begun() {
    for binary in [Binary::Gateway, Binary::Decider, Binary::AllInOne] {
        let mut service = Service::spawn(binary, Settings::new());
        service.catches_hangup().await;
        for _ in 0..20 {
            service.sighup();
        }
        service.ready().await;
        assert_eq!(service.ended(), None);
    }
}
