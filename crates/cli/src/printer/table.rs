//! Tables aligned as kubectl aligns them. Pure.

use std::fmt;

/// Between two columns.
const PADDING: usize = 3;
/// No column is narrower, padding included.
const NARROWEST: usize = 6;

/// A header and rows of as many cells.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&name| name.to_owned()).collect()] }
    }

    /// Adds a row; an empty cell reads `<none>`.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let none_if_empty = |cell: String| if cell.is_empty() { "<none>".to_owned() } else { cell };
        self.rows.push(cells.into_iter().map(none_if_empty).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let widest = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            (widest.unwrap_or(0) + PADDING).max(NARROWEST)
        };
        let widths: Vec<_> = (0..self.rows[0].len()).map(width).collect();
        for row in &self.rows {
            let last = row.len().saturating_sub(1);
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let width = if column == last { 0 } else { *width };
                write!(f, "{cell:width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_as_in_kubectl() {
        let mut table = Table::new(&["NAME", "OK", "AGE"]);
        table.row(["demo".to_owned(), String::new(), "3h12m".to_owned()]);
        table.row(["a-longer-name".to_owned(), "1".to_owned(), "5s".to_owned()]);
        assert_eq!(
            table.to_string(),
            "\
NAME            OK       AGE
demo            <none>   3h12m
a-longer-name   1        5s
"
        );
    }
}
