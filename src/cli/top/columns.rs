//! Which columns a screen has room for.

use ratatui::layout::Constraint;

use super::look::{HEADINGS, LEAST};

/// The columns that are shown, in their order, and how wide each is.
#[derive(Debug)]
pub(super) struct Columns(Vec<(usize, usize)>);

/// Of a bank's name at least so much is shown, before columns are left out for its sake.
const NAME: usize = 24;
/// What is left of it at last.
const SHORTEST_NAME: usize = 8;

impl Columns {
    /// All of them if the width allows; names of banks make way first, then what matters least.
    pub(super) fn fitting(rows: &[Vec<String>], width: usize) -> Self {
        let widest = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
            cells.max(HEADINGS.get(column).map_or(0, |heading| heading.len()))
        };
        let mut shown: Vec<(usize, usize)> = (0..HEADINGS.len()).map(|column| (column, widest(column))).collect();
        let longest = widest(0);
        // A blank before each but the name.
        let beside = |shown: &[(usize, usize)]| shown.iter().skip(1).map(|(_, width)| width + 1).sum::<usize>();
        for least in LEAST {
            if beside(&shown) + longest.min(NAME) <= width {
                break;
            }
            shown.retain(|(column, _)| HEADINGS.get(*column) != Some(&least));
        }
        let room = width.saturating_sub(beside(&shown)).max(SHORTEST_NAME);
        if let Some((_, name)) = shown.first_mut() {
            *name = longest.min(room);
        }
        Self(shown)
    }

    pub(super) fn widths(&self) -> Vec<Constraint> {
        self.0.iter().map(|(_, width)| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX))).collect()
    }

    /// A row's cells that are shown; what is too long says so.
    pub(super) fn of(&self, row: &[String]) -> Vec<String> {
        let cell = |&(column, width): &(usize, usize)| {
            let cell = row.get(column).map_or("", String::as_str);
            if cell.chars().count() <= width {
                cell.to_owned()
            } else {
                cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
            }
        };
        self.0.iter().map(cell).collect()
    }

    /// What a wider screen would show.
    pub(super) fn left_out(&self) -> String {
        let shown = |heading: &&str| self.0.iter().any(|(column, _)| HEADINGS.get(*column) == Some(heading));
        let missing: Vec<&str> = HEADINGS.into_iter().filter(|heading| !shown(heading)).collect();
        if missing.is_empty() { String::new() } else { format!("  wider: {}", missing.join(" ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Columns, HEADINGS};

    fn row(name: &str) -> Vec<String> {
        let rest = ["keyed", "1.05M", "517.2 MiB", "400000", "12.3k", "105", "6720", "0", "building 97 %", "1840", "0.991"];
        std::iter::once(name).chain(rest).map(str::to_owned).collect()
    }

    fn shown(names: &[&str], width: usize) -> (Vec<String>, Vec<String>, String) {
        let rows: Vec<Vec<String>> = names.iter().map(|name| row(name)).collect();
        let columns = Columns::fitting(&rows, width);
        let line: usize = columns.0.iter().map(|(_, width)| width + 1).sum::<usize>() - 1;
        assert!(line <= width, "{line} of {width}");
        (columns.of(&HEADINGS.map(str::to_owned)), columns.of(&rows[0]), columns.left_out())
    }

    #[test]
    fn a_wide_screen_shows_all() {
        let (headings, cells, left_out) = shown(&["imagenet"], 120);
        assert_eq!((headings, cells, left_out.as_str()), (HEADINGS.map(str::to_owned).to_vec(), row("imagenet"), ""));
    }

    #[test]
    fn a_narrow_one_shows_what_matters_most() {
        let long = "a-run-of-somebody/with-a-name-that-goes-on-and-on";
        let (headings, cells, left_out) = shown(&[long, "b"], 80);
        assert_eq!(headings, ["BANK", "ENTRIES", "WRITES/s", "SERVED/s", "MISSING/s", "STATE"]);
        assert!(cells[0].ends_with('…') && long.starts_with(cells[0].trim_end_matches('…')), "{cells:?}");
        assert_eq!(cells[1..], ["1.05M", "12.3k", "6720", "0", "building 97 %"]);
        assert_eq!(left_out, "  wider: KIND MEMORY STEP DRAWS/s LAG RECALL");
        let (headings, ..) = shown(&["b"], 80);
        assert!(headings.len() > 6, "a short name leaves room: {headings:?}");
        let (headings, cells, _) = shown(&[long], 43);
        assert_eq!((headings.len(), cells[0].chars().count()), (4, 10), "{headings:?}");
    }
}
