//! Tables of text, aligned by hand: two spaces between columns, no frames.

use super::screen::{Screen, Tone};

/// Between two columns.
const GAP: &str = "  ";

/// To which side a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
    /// Marks of a matrix.
    Centre,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell whose meaning has a colour.
    pub fn new(tone: Tone, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { text, tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::new(Tone::Plain, text)
    }
}

/// Rows under a heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns
            .iter()
            .map(|(name, align)| ((*name).to_owned(), *align));
        Self {
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    /// A matrix: a column of names, then one centred column for each of `heads`.
    pub fn matrix(corner: &str, heads: impl IntoIterator<Item = String>) -> Self {
        let mut columns = vec![(corner.to_owned(), Align::Left)];
        columns.extend(heads.into_iter().map(|head| (head, Align::Centre)));
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row; missing cells are empty, cells beyond the columns are left out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, indented by two spaces, without trailing ones.
    pub fn render(&self, screen: Screen) -> Vec<String> {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|index| self.width(index))
            .collect();
        let heads = self.columns.iter();
        let heads: Vec<Cell> = heads.map(|(name, _)| Cell::new(Tone::Dim, name)).collect();
        let rows = std::iter::once(&heads).chain(&self.rows);
        rows.map(|row| self.line(screen, row, &widths)).collect()
    }

    /// Writes the table.
    pub fn print(&self, screen: Screen) {
        for line in self.render(screen) {
            screen.line(&line);
        }
    }

    fn width(&self, index: usize) -> usize {
        let head = self
            .columns
            .get(index)
            .map_or(0, |(name, _)| name.chars().count());
        let cells = self.rows.iter().filter_map(|row| row.get(index));
        cells
            .map(|cell| cell.text.chars().count())
            .fold(head, usize::max)
    }

    fn line(&self, screen: Screen, row: &[Cell], widths: &[usize]) -> String {
        // Padding is held back until something follows it.
        let (mut line, mut pending) = (String::new(), String::new());
        for (index, (_, align)) in self.columns.iter().enumerate() {
            let (Some(cell), Some(width)) = (row.get(index), widths.get(index)) else {
                break;
            };
            let room = width.saturating_sub(cell.text.chars().count());
            let before = match align {
                Align::Left => 0,
                Align::Right => room,
                Align::Centre => room / 2,
            };
            pending.push_str(GAP);
            pending.push_str(&" ".repeat(before));
            if !cell.text.is_empty() {
                line.push_str(&pending);
                pending.clear();
                line.push_str(&screen.paint(cell.tone, &cell.text));
            } else {
                pending.push_str(&" ".repeat(cell.text.chars().count()));
            }
            pending.push_str(&" ".repeat(room - before));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::new(&[
            ("pod", Align::Left),
            ("ms", Align::Right),
            ("ok", Align::Centre),
            ("note", Align::Left),
        ]);
        table.row([
            "web-1".into(),
            "3".into(),
            Cell::new(Tone::Good, "✓"),
            "".into(),
        ]);
        table.row(["j".into(), "12.5".into(), "yes".into(), "late".into()]);
        let wanted = [
            "  pod      ms  ok   note",
            "  web-1     3   ✓",
            "  j      12.5  yes  late",
        ];
        assert_eq!(table.render(Screen::plain()), wanted);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::matrix("to", ["a".to_owned(), "b".to_owned()]);
        table.row([
            "x".into(),
            Cell::new(Tone::Bad, "✗"),
            Cell::new(Tone::Good, "✓"),
        ]);
        let colour = Screen {
            colour: true,
            ..Screen::plain()
        };
        let plain = table.render(Screen::plain()).join("\n");
        let stripped = table.render(colour).join("\n");
        let stripped: String = stripped
            .split('\x1b')
            .map(|part| {
                part.split_once('m').map_or(
                    part,
                    |(code, rest)| if code.starts_with('[') { rest } else { part },
                )
            })
            .collect();
        assert_eq!(stripped, plain);
    }
}
