//! The callbacks that there is no room for.

use std::time::Duration;

use http::{StatusCode, request::Parts};
use importguard_proto::{
    OperationId,
    event::{Cause, Dialect},
};

use super::{
    Clock, End, Guard, Told,
    body::{read_body, skip_body},
    respond, verdict,
};
use crate::{
    callback::{Answer, Command, ImportRequest, Limits, Reason, Rejection},
    decide::{Decision, Fallback, OnFailure, Source},
    record::EventId,
    serve::Received,
};

/// How long reading an overload's callback and recording it may take: its body comes with its head where all is well.
const PATIENCE: Duration = Duration::from_millis(100);

/// How large a body may be to be read in an overload: a thousand friends, read in a tenth of a millisecond.
const BODY_BYTES: usize = 64 * 1024;

impl Guard {
    /// Answers by the operator's choice, without waiting for anything but a turn. As many as there is time for are recorded like any
    /// other decision; the rest are counted, and let through only if the operator lets unrecorded decisions stand.
    pub(super) async fn overloaded(
        &self,
        command: Command,
        operation_id: OperationId,
        head: &Parts,
        body: Received,
        clock: Clock,
    ) -> Result<Told, Rejection> {
        let dialect = command.dialect();
        self.admission.turn(clock.left() / 2).await;
        let has_time = self.admission.has_time_to_record();
        let clock = clock.within(PATIENCE);
        let Command::BeforeImport(_) = command else {
            skip_body(&head.headers, body, BODY_BYTES, clock.deadline).await;
            // A report: nobody waits for a verdict.
            let reason = Reason::Overloaded;
            return Err(Rejection { dialect, reason });
        };
        let request = if has_time {
            let read = self.glance(command, operation_id, head, body, clock).await;
            read.map_err(|reason| Rejection { dialect, reason })?
        } else {
            skip_body(&head.headers, body, BODY_BYTES, clock.deadline).await;
            None
        };
        let Some(request) = request else {
            return Ok(self.unrecorded(dialect));
        };
        let id = EventId::new();
        let decision = fallback(Cause::Overloaded, self.fallback.on_overload);
        let (decision, cause) = self.record(id, &request, dialect, decision, clock).await;
        self.metrics.decided(&decision);
        Ok(verdict(dialect, &request, &decision, cause))
    }

    fn unrecorded(&self, dialect: Dialect) -> Told {
        self.admission.unrecorded();
        let (cause, chosen) = match (self.fallback.on_overload, self.fallback.on_unrecordable) {
            (OnFailure::Allow, OnFailure::Refuse) => (Cause::Unrecordable, OnFailure::Refuse),
            (chosen, _) => (Cause::Overloaded, chosen),
        };
        let decision = fallback(cause, chosen);
        self.metrics.decided(&decision);
        let refusal = Fallback::of(cause).refusal();
        let answer = match chosen {
            OnFailure::Allow => Answer::Allow,
            OnFailure::Refuse => Answer::Refuse {
                code: refusal.code,
                message: &refusal.message,
                detail: &refusal.detail,
                request: None,
            },
        };
        Told {
            response: respond(StatusCode::OK, answer.encode(dialect)),
            end: End::Decided(decision.verdict.name(), Some(cause)),
        }
    }

    /// The request, if it is all there and small; an error if it is none.
    async fn glance(
        &self,
        command: Command,
        operation_id: OperationId,
        head: &Parts,
        body: Received,
        clock: Clock,
    ) -> Result<Option<ImportRequest>, Reason> {
        let limits = Limits {
            body_bytes: self.limits.body_bytes.min(BODY_BYTES),
            ..self.limits
        };
        match read_body(&head.headers, body, limits.body_bytes, clock.deadline).await {
            Ok(body) => ImportRequest::parse(command, operation_id, &body, &limits).map(Some),
            Err(Reason::TooLarge { .. } | Reason::TooSlow) => Ok(None),
            Err(reason) => Err(reason),
        }
    }
}

fn fallback(cause: Cause, chosen: OnFailure) -> Decision {
    Decision {
        verdict: Fallback::of(cause).verdict(chosen),
        source: Source::Fallback(cause),
        took: Duration::ZERO,
    }
}
