use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::Either;
use importguard_proto::decider::decider_server::SERVICE_NAME;
use tonic::{body::Body, codegen::http};
use tower::{Layer, Service};

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Hands questions to the decider at once, past the router to which health and reflection are left: that boxes and clones for
/// each call, which costs some seven per cent of all that a decision costs a decider.
#[derive(Clone, Debug)]
pub(crate) struct Shortcut<D, R = ()> {
    decider: D,
    router: R,
}

impl<D> Shortcut<D> {
    pub(crate) fn to(decider: D) -> Self {
        Self {
            decider,
            router: (),
        }
    }
}

impl<D: Clone, R> Layer<R> for Shortcut<D> {
    type Service = Shortcut<D, R>;

    fn layer(&self, router: R) -> Self::Service {
        Shortcut {
            decider: self.decider.clone(),
            router,
        }
    }
}

impl<D, R> Service<Request> for Shortcut<D, R>
where
    D: Service<Request, Response = Response, Error = Infallible>,
    R: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<D::Future, R::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.decider.poll_ready(cx) {
            Poll::Ready(Ok(())) => self.router.poll_ready(cx),
            waiting => waiting,
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        if service.is_some_and(|(service, _)| service == SERVICE_NAME) {
            Either::Left(self.decider.call(request))
        } else {
            Either::Right(self.router.call(request))
        }
    }
}
