//! The .npy format: a dictionary in Python's notation that tells dtype and shape, then the values
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::column::{Column, Dtype, Name};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Room for the dictionary of any matrix, so that it can be written once the rows are counted.
pub(super) const HEAD: usize = 128;
/// No dictionary of an array without fields is longer.
const LONGEST: usize = 64 << 10;

fn descr(dtype: Dtype) -> Option<&'static str> {
    Some(match dtype {
        Dtype::F64 => "<f8",
        Dtype::F32 => "<f4",
        Dtype::F16 => "<f2",
        Dtype::U64 => "<u8",
        Dtype::I64 => "<i8",
        Dtype::U32 => "<u4",
        Dtype::I32 => "<i4",
        Dtype::U8 => "|u1",
        // numpy has none.
        Dtype::Bf16 => return None,
    })
}

/// The head of a file of `rows` rows: a matrix of `width` columns, or a vector.
pub(super) fn head(dtype: Dtype, rows: usize, width: Option<usize>) -> Result<[u8; HEAD], String> {
    let descr = descr(dtype).ok_or("numpy has no such type of floats")?;
    let shape = width.map_or(format!("({rows},)"), |width| format!("({rows}, {width})"));
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let mut head = [b' '; HEAD];
    let start = MAGIC.len() + 4;
    head[..MAGIC.len()].copy_from_slice(MAGIC);
    head[MAGIC.len()..MAGIC.len() + 2].copy_from_slice(&[1, 0]);
    head[MAGIC.len() + 2..start].copy_from_slice(&((HEAD - start) as u16).to_le_bytes());
    let text = head.get_mut(start..start + dictionary.len()).ok_or("the shape is too large")?;
    text.copy_from_slice(dictionary.as_bytes());
    head[HEAD - 1] = b'\n';
    Ok(head)
}

/// The column of a file.
pub(super) fn open(path: &Path, name: Name) -> Result<Column, String> {
    let fault = |what: &str| format!("{}: {what}", path.display());
    let mut file = File::open(path).map_err(|error| fault(&error.to_string()))?;
    let mut begin = [0; 10];
    file.read_exact(&mut begin).map_err(|_| fault("it is no .npy file"))?;
    let version = begin[6];
    if &begin[..6] != MAGIC || !(1..=3).contains(&version) {
        return Err(fault("it is no .npy file of version 1 to 3"));
    }
    let mut len = usize::from(u16::from_le_bytes([begin[8], begin[9]]));
    let mut at = 10;
    if version > 1 {
        let mut rest = [0; 2];
        file.read_exact(&mut rest).map_err(|_| fault("its header is cut short"))?;
        len |= usize::from(u16::from_le_bytes(rest)) << 16;
        at = 12;
    }
    if len > LONGEST {
        return Err(fault("its header is too long for an array of numbers"));
    }
    let mut dictionary = vec![0; len];
    file.read_exact(&mut dictionary).map_err(|_| fault("its header is cut short"))?;
    let (dtype, shape) = parse(&String::from_utf8_lossy(&dictionary)).map_err(|what| fault(&what))?;
    let (rows, width) = match (name, shape.as_slice()) {
        (Name::Embeddings, &[rows, width]) => (rows, width),
        (Name::Embeddings, _) => return Err(fault(&format!("a matrix of N rows is wanted, and its shape is {shape:?}"))),
        (_, &[rows] | &[rows, 1]) => (rows, 1),
        _ => return Err(fault(&format!("a value a row is wanted, and its shape is {shape:?}"))),
    };
    let at = (at + len) as u64;
    Column { name, path: path.to_owned(), file: Arc::new(file), at, dtype, rows, width }.whole()
}

fn parse(dictionary: &str) -> Result<(Dtype, Vec<usize>), String> {
    let value = |key: &str| {
        let rest = dictionary.split_once(&format!("'{key}':"))?.1.trim_start();
        let end = match rest.chars().next()? {
            '(' => rest.find(')')? + 1,
            '\'' => rest.get(1..)?.find('\'')? + 2,
            _ => rest.find([',', '}'])?,
        };
        rest.get(..end).map(str::trim)
    };
    let missing = |key: &str| format!("its header has no {key}: {}", dictionary.trim());
    let written = value("descr").ok_or_else(|| missing("descr"))?.trim_matches('\'');
    let same = |dtype: &Dtype| descr(*dtype) == Some(written) || (*dtype == Dtype::U8 && written == "|b1");
    let dtype = Dtype::ALL.into_iter().find(same).ok_or_else(|| {
        format!(
            "values of type {written} are not known; little-endian floats and integers are (astype and ascontiguousarray help)"
        )
    })?;
    if value("fortran_order") != Some("False") {
        return Err("its rows do not lie one after the other: save numpy.ascontiguousarray of it".to_owned());
    }
    let shape = value("shape").ok_or_else(|| missing("shape"))?;
    let sizes = shape.trim_matches(['(', ')']).split(',').map(str::trim).filter(|size| !size.is_empty());
    let sizes: Result<Vec<usize>, _> = sizes.map(str::parse).collect();
    sizes.map(|sizes| (dtype, sizes)).map_err(|_| format!("its shape {shape} is none"))
}

#[cfg(test)]
mod tests {
    use super::{Dtype, HEAD, head, parse};

    #[test]
    fn what_is_written_is_read() {
        for (dtype, rows, width) in [(Dtype::F32, 3, Some(4)), (Dtype::I64, usize::MAX, None), (Dtype::U8, 0, None)] {
            let head = head(dtype, rows, width).unwrap();
            assert!(head.len() == HEAD && HEAD.is_multiple_of(64));
            let shape: Vec<usize> = [Some(rows), width].into_iter().flatten().collect();
            assert_eq!(parse(std::str::from_utf8(&head[10..]).unwrap()).unwrap(), (dtype, shape));
        }
        assert!(head(Dtype::Bf16, 1, None).is_err());
    }

    #[test]
    fn what_cannot_be_read_in_rows_is_refused() {
        for (dictionary, says) in [
            ("{'descr': '>f4', 'fortran_order': False, 'shape': (3, 4), }", "little-endian"),
            ("{'descr': '<c8', 'fortran_order': False, 'shape': (3, 4), }", "<c8"),
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 4), }", "ascontiguousarray"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, -4), }", "none"),
            ("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (3,), }", "not known"),
            ("{'fortran_order': False, 'shape': (3,)", "descr"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3", "shape"),
            ("'descr':", "descr"),
        ] {
            let refused = parse(dictionary).unwrap_err();
            assert!(refused.contains(says), "{dictionary}: {refused}");
        }
    }
}
