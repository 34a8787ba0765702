//! Requests for negatives.

use super::Limits;
use super::anchors::anchors;
use super::draws::{check_filters, draws};
use super::form::form;
use crate::model::{BankSpec, Invalid, SampleQuery, Seed};
use crate::proto::v1;

/// The query of a request to a bank of these settings. `seed` is used where the request gives none. How large its answer could be
/// depends on the bank's entries, so [`super::check_size`] is asked when they are there.
pub(in crate::grpc) fn query(
    request: v1::SampleRequest,
    spec: &BankSpec,
    seed: Seed,
    limits: &Limits,
) -> Result<SampleQuery, Invalid> {
    let mut invalid = Invalid::default();
    let form = form(&request, limits, &mut invalid);
    let anchors = anchors(request.anchors.unwrap_or_default(), spec, limits).map_err(|faults| invalid.merge(faults)).ok();
    let filters = request.filters.unwrap_or_default();
    check_filters("filters", &filters, limits, &mut invalid);
    let draws = draws(request.draws, &filters, request.seed.is_some(), limits, &mut invalid);
    let Some(anchors) = anchors else { return Err(invalid) };
    invalid.or(())?;
    let seed = request.seed.map_or(seed, Seed);
    SampleQuery::new(anchors, draws, request.step, seed, form)
}
