//! The screen, and its keys.

use std::io;
use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table, TableState, Wrap};

use super::Seen;
use super::columns::Columns;
use super::look::{HEADINGS, Order};

/// What is remembered between two drawings.
#[derive(Debug, Default)]
pub(super) struct Screen {
    order: Order,
    /// The bank that the arrows have come to.
    at: TableState,
}

/// What a key asks for, beside what the screen does itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Other,
}

const HELP: &str = "q quit  o order  up/down scroll";

impl Screen {
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, address: &str, seen: &Seen) {
        let [title, heading, banks, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Length(3), Constraint::Min(1), Constraint::Length(1)])
                .areas(frame.area());
        frame.render_widget(Line::from(format!("negbank top: {address}")).bold(), title);
        let shown = seen.look.as_ref().map(|look| {
            let rows = look.rows(self.order);
            let columns = Columns::fitting(&rows, frame.area().width.into());
            (look, rows, columns)
        });
        let help = shown.as_ref().map_or_else(|| HELP.to_owned(), |(.., columns)| format!("{HELP}{}", columns.left_out()));
        let foot_line = match &seen.fault {
            Some(fault) => Line::from(format!("no news: {fault}")).red(),
            None => Line::from(help).dim(),
        };
        frame.render_widget(foot_line, foot);
        let Some((look, rows, columns)) = shown else { return };
        frame.render_widget(Paragraph::new(look.heading()).wrap(Wrap { trim: true }), heading);
        let table = Table::new(rows.iter().map(|row| Row::new(columns.of(row))), columns.widths())
            .header(Row::new(columns.of(&HEADINGS.map(str::to_owned))).bold())
            .row_highlight_style(Style::new().reversed());
        frame.render_stateful_widget(table, banks, &mut self.at);
    }

    /// Waits that long for a key.
    pub(super) fn key(&mut self, within: Duration) -> io::Result<Key> {
        if !event::poll(within)? {
            return Ok(Key::Other);
        }
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => Ok(self.pressed(key)),
            _ => Ok(Key::Other),
        }
    }

    fn pressed(&mut self, key: KeyEvent) -> Key {
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Key::Quit,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Key::Quit,
            KeyCode::Char('o') => self.order = if self.order == Order::Name { Order::Served } else { Order::Name },
            KeyCode::Down => self.at.select_next(),
            KeyCode::Up => self.at.select_previous(),
            _ => {}
        }
        Key::Other
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::super::Seen;
    use super::{Key, Order, Screen};

    #[test]
    fn keys_do_what_the_foot_says() {
        let mut screen = Screen::default();
        let mut press = |code, modifiers| screen.pressed(KeyEvent::new(code, modifiers));
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::NONE), Key::Other);
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Key::Quit);
        assert_eq!(press(KeyCode::Char('q'), KeyModifiers::NONE), Key::Quit);
        assert_eq!(press(KeyCode::Char('o'), KeyModifiers::NONE), Key::Other);
        assert_eq!(press(KeyCode::Down, KeyModifiers::NONE), Key::Other);
        assert_eq!((screen.order, screen.at.selected()), (Order::Served, Some(0)));
    }

    #[test]
    fn a_server_that_went_away_is_told() {
        let mut terminal = Terminal::new(TestBackend::new(60, 8)).unwrap();
        let seen = Seen { look: None, fault: Some("nobody answers".into()) };
        terminal.draw(|frame| Screen::default().draw(frame, "there:1", &seen)).unwrap();
        let shown: String = terminal.backend().buffer().content().iter().map(ratatui::buffer::Cell::symbol).collect();
        assert!(shown.contains("negbank top: there:1") && shown.contains("no news: nobody answers"), "{shown}");
    }
}
