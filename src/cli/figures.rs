//! Prometheus's text format, read.

/// What a server measured, at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures(Vec<Figure>);

#[derive(Debug, Clone)]
struct Figure {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Figures {
    /// Lines that can't be read are left out.
    pub(super) fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(figure).collect())
    }

    /// The sum of all of a name whose labels are these.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |figure: &&Figure| {
            let has = |(key, value): &(&str, &str)| figure.labels.iter().any(|(k, v)| k == key && v == value);
            figure.name == name && labels.iter().all(has)
        };
        // Not sum(), which is -0 where there is nothing.
        self.0.iter().filter(fits).fold(0.0, |sum, figure| sum + figure.value)
    }

    /// The sum of all of a name; `None` if there are none.
    pub(super) fn total(&self, name: &str) -> Option<f64> {
        (self.count(name) > 0).then(|| self.sum(name, &[]))
    }

    /// How many there are of a name.
    pub(super) fn count(&self, name: &str) -> usize {
        self.values(name).count()
    }

    /// What each value of a label has of a name, in the order of the text.
    pub(super) fn by<'a>(&'a self, name: &'a str, label: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let of = move |figure: &'a Figure| {
            let (_, value) = figure.labels.iter().find(|(key, _)| key == label)?;
            Some((value.as_str(), figure.value))
        };
        self.0.iter().filter(move |figure| figure.name == name).filter_map(of)
    }

    /// The least of a name.
    pub(super) fn least(&self, name: &str) -> Option<f64> {
        self.values(name).reduce(f64::min)
    }

    /// The largest of a name.
    pub(super) fn largest(&self, name: &str) -> Option<f64> {
        self.values(name).reduce(f64::max)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = f64> {
        self.0.iter().filter(move |figure| figure.name == name).map(|figure| figure.value)
    }
}

/// `name{key="value",...} 1.5`; values of labels have no quotes of their own here: they are names of banks, methods and reasons.
fn figure(line: &str) -> Option<Figure> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.strip_suffix('}').unwrap_or(labels).split("\",").filter(|label| !label.is_empty());
    let pair = |label: &str| {
        let (key, value) = label.split_once("=\"")?;
        Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
    };
    Some(Figure { name: name.to_owned(), labels: labels.map(pair).collect::<Option<_>>()?, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn figures_are_found_by_name_and_labels() {
        let text = "# HELP a what\na{x=\"1\",y=\"p.q/R\"} 2\na{x=\"2\",y=\"p.q/R\"} 3.5\na_b 7\nbroken\na{x=1} 9\n# EOF\n";
        let figures = Figures::parse(text);
        let sum = |name: &str, labels: &[(&str, &str)]| figures.sum(name, labels);
        assert_eq!((sum("a", &[]), sum("a", &[("x", "2")]), sum("a", &[("y", "p.q/R"), ("x", "1")])), (5.5, 3.5, 2.0));
        assert_eq!((sum("a_b", &[]), sum("a", &[("x", "3")])), (7.0, 0.0));
        assert_eq!((figures.count("a"), figures.total("a"), figures.total("c")), (2, Some(5.5), None));
        assert_eq!(figures.by("a", "x").collect::<Vec<_>>(), [("1", 2.0), ("2", 3.5)]);
        assert_eq!((figures.least("a"), figures.largest("a"), figures.least("c")), (Some(2.0), Some(3.5), None));
        assert!(sum("c", &[]).is_sign_positive(), "nothing is 0, not -0");
    }
}
