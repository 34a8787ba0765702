//! `--draw`: a draw in one word.

use std::str::FromStr;

use crate::client::messages as v1;

/// STRATEGY[:OPTION,...], read.
#[derive(Debug, Clone)]
pub(in crate::cli) struct DrawArg {
    /// As it was given.
    pub(in crate::cli) text: String,
    draw: v1::Draw,
}

impl DrawArg {
    /// The draw, of `k` entries where it gives no number of its own.
    pub(in crate::cli) fn of(&self, k: u32) -> v1::Draw {
        v1::Draw { k: if self.draw.k == 0 { k } else { self.draw.k }, ..self.draw.clone() }
    }

    /// True if the anchors need embeddings.
    pub(in crate::cli) fn is_scored(&self) -> bool {
        use v1::draw::Strategy::{Balanced, Uniform, Weighted};
        !matches!(self.draw.strategy, Some(Uniform(_) | Weighted(_) | Balanced(_)))
    }
}

impl FromStr for DrawArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (strategy, options) = text.split_once(':').unwrap_or((text, ""));
        let options = options.split(',').filter(|option| !option.is_empty());
        let mut draw = v1::Draw::default();
        let mut strategy = match strategy {
            "uniform" => v1::draw::Strategy::Uniform(v1::Uniform::default()),
            "nearest" => v1::draw::Strategy::Nearest(v1::Nearest::default()),
            "weighted" => v1::draw::Strategy::Weighted(v1::Weighted::default()),
            "balanced" => v1::draw::Strategy::Balanced(v1::Balanced::default()),
            "softmax" => v1::draw::Strategy::Softmax(v1::Softmax::default()),
            "band" => v1::draw::Strategy::Band(v1::Band::default()),
            other => {
                let known = "uniform, weighted, balanced, nearest, softmax and band";
                return Err(format!("there is no strategy {other:?}; there are {known}"));
            }
        };
        for option in options {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let known = match (&mut strategy, key) {
                (_, "k") => set(&mut draw.k, key, value).and_then(|()| positive(draw.k))?,
                (v1::draw::Strategy::Nearest(nearest), _) => of_nearest(nearest, key, value)?,
                (v1::draw::Strategy::Softmax(softmax), _) => of_softmax(softmax, key, value)?,
                (v1::draw::Strategy::Band(band), _) => of_band(band, key, value)?,
                (_, "shared") if flag(key, value)? => {
                    draw.scope = v1::Scope::Shared.into();
                    true
                }
                (v1::draw::Strategy::Uniform(uniform), "with_replacement") => {
                    set_flag(&mut uniform.with_replacement, key, value)?
                }
                (v1::draw::Strategy::Weighted(weighted), "alpha") => {
                    set(weighted.alpha.get_or_insert_default(), key, value).map(|()| true)?
                }
                (v1::draw::Strategy::Weighted(weighted), "without_replacement") => {
                    set_flag(&mut weighted.without_replacement, key, value)?
                }
                (v1::draw::Strategy::Balanced(balanced), "without_replacement") => {
                    set_flag(&mut balanced.without_replacement, key, value)?
                }
                _ => false,
            };
            if !known {
                return Err(format!("{key:?} is no option of {}; `negbank bench --help` lists them", text_of(&strategy)));
            }
        }
        draw.strategy = Some(strategy);
        Ok(Self { text: text.to_owned(), draw })
    }
}

fn text_of(strategy: &v1::draw::Strategy) -> &'static str {
    match strategy {
        v1::draw::Strategy::Uniform(_) => "uniform",
        v1::draw::Strategy::Nearest(_) => "nearest",
        v1::draw::Strategy::Weighted(_) => "weighted",
        v1::draw::Strategy::Balanced(_) => "balanced",
        v1::draw::Strategy::Softmax(_) => "softmax",
        v1::draw::Strategy::Band(_) => "band",
    }
}

/// Whether `key` is one of nearest's options, which then is set.
fn of_nearest(nearest: &mut v1::Nearest, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "skip" => set(&mut nearest.skip, key, value)?,
        "window" => set(nearest.window.get_or_insert_default(), key, value)?,
        "candidates" => set(nearest.candidates.get_or_insert_default(), key, value)?,
        "beta" => set(&mut nearest.beta, key, value)?,
        "min_score" => set(nearest.rules.get_or_insert_default().min_score.get_or_insert_default(), key, value)?,
        "max_score" => set(nearest.rules.get_or_insert_default().max_score.get_or_insert_default(), key, value)?,
        "without_replacement" => nearest.without_replacement = flag(key, value)?,
        "count_exact" => nearest.count_exact = flag(key, value)?,
        "choose" => nearest.choose = choose(value)?.into(),
        _ => return Ok(false),
    }
    Ok(true)
}

fn of_softmax(softmax: &mut v1::Softmax, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "beta" => set(&mut softmax.beta, key, value)?,
        "without_replacement" => softmax.without_replacement = flag(key, value)?,
        "min_score" => set(softmax.rules.get_or_insert_default().min_score.get_or_insert_default(), key, value)?,
        "max_score" => set(softmax.rules.get_or_insert_default().max_score.get_or_insert_default(), key, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn of_band(band: &mut v1::Band, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "lo" => set(&mut band.lo, key, value)?,
        "hi" => set(band.hi.get_or_insert_default(), key, value)?,
        "with_replacement" => band.with_replacement = flag(key, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn choose(value: &str) -> Result<v1::Choose, String> {
    match value {
        "top" => Ok(v1::Choose::Top),
        "uniform" => Ok(v1::Choose::Uniform),
        "softmax" => Ok(v1::Choose::Softmax),
        other => Err(format!("choose={other:?}: top, uniform or softmax is wanted")),
    }
}

fn set<N: FromStr>(setting: &mut N, key: &str, value: &str) -> Result<(), String> {
    *setting = value.parse().map_err(|_| format!("{key}={value}: a number is wanted, as in {key}=2"))?;
    Ok(())
}

fn positive(k: u32) -> Result<bool, String> {
    if k > 0 { Ok(true) } else { Err("k=0: at least 1 is wanted".to_owned()) }
}

fn set_flag(setting: &mut bool, key: &str, value: &str) -> Result<bool, String> {
    *setting = flag(key, value)?;
    Ok(true)
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    if value.is_empty() { Ok(true) } else { Err(format!("{key} takes no value, {value:?} was given")) }
}

#[cfg(test)]
mod tests {
    use super::DrawArg;
    use crate::client::messages as v1;

    #[test]
    fn a_draw_says_all_that_it_says() {
        let draw = "nearest:skip=2,k=7,choose=softmax,beta=20,max_score=0.9,window=128".parse::<DrawArg>().unwrap().of(64);
        let expected = v1::Nearest {
            skip: 2,
            window: Some(128),
            choose: v1::Choose::Softmax.into(),
            beta: 20.0,
            rules: Some(v1::ScoreRules { max_score: Some(0.9), ..Default::default() }),
            ..Default::default()
        };
        assert_eq!((draw.k, draw.strategy), (7, Some(v1::draw::Strategy::Nearest(expected))));
        let shared = "uniform:shared".parse::<DrawArg>().unwrap().of(64);
        assert_eq!((shared.k, shared.scope()), (64, v1::Scope::Shared));
    }

    #[test]
    fn a_mistake_is_told_with_what_was_wanted() {
        for (text, part) in [
            ("farthest", "softmax and band"),
            ("uniform:skip=2", "no option of uniform"),
            ("nearest:skip=two", "skip=two: a number is wanted"),
            ("nearest:choose=best", "top, uniform or softmax"),
            ("uniform:k=0", "at least 1"),
            ("uniform:shared=yes", "takes no value"),
        ] {
            let told = text.parse::<DrawArg>().unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
        }
    }
}
