//! Turns, for work that callers cause without being answered by anything but this process.

use tokio::{
    sync::Mutex,
    task::{JoinSet, yield_now},
};

/// Held by the task whose turn it is: one in the process, which has one I/O driver.
static TURN: Mutex<()> = Mutex::const_new(());

/// Waits for a turn, first come, first served. There is one each time that the runtime looks for I/O, so that any number of connections
/// which ask for work of this kind together delay all others by no more than one of them.
pub async fn take_turn() {
    // In a task of its own, as a connection may hold its turn and not be polled.
    let mut turn = JoinSet::new();
    turn.spawn(async {
        let _turn = TURN.lock().await;
        // tokio wakes a task that yields after it has looked for I/O.
        yield_now().await;
    });
    turn.join_next().await;
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, pin::pin};

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn turns_are_given_one_after_the_other_in_the_order_of_their_requests() {
        let given = RefCell::new(Vec::new());
        let take = async |number| {
            take_turn().await;
            given.borrow_mut().push(number);
        };
        tokio::join!(take(1), take(2), take(3));
        assert_eq!(given.into_inner(), [1, 2, 3]);
    }

    #[tokio::test]
    async fn who_does_not_use_its_turn_holds_up_nobody() {
        let mut unused = pin!(take_turn());
        assert!(poll!(unused.as_mut()).is_pending());
        take_turn().await;
    }
}
