//! ORC files, made by the library of the Apache ORC project (`fixtures/orc/make.py`), as columns: what they give, also
//! after restores at any point, and how bad files are told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tidemill_connectors::file::{Container, ContainerSource, OrcFiles, Part};
use tidemill_core::Result;

use crate::file_container::{all, are_visits_once_also_after_restores, failure, rows, visits};

fn orc_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/orc")
}

#[test]
fn orc_files_give_the_columns_asked_for_once_also_after_restores() {
    let files = orc_files().join("*.orc");
    let source = ContainerSource::new(&files, OrcFiles::new(visits(2)).unwrap()).event_time("at").unwrap();
    let (batches, refused) = all(&source);
    // Packed in every way.
    assert_eq!(rows(&batches), 3_039);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].ends_with("a.orc record 1501: field `kind` is missing"), "{refused:?}");
    are_visits_once_also_after_restores(source, &batches);

    let absent: SchemaRef = Arc::new(Schema::new(vec![Field::new("absent", DataType::Int64, true)]));
    let (batches, _) = all(&ContainerSource::new(&files, OrcFiles::new(absent).unwrap()));
    assert_eq!(rows(&batches), 3_040);
}

#[test]
fn bad_orc_files_are_told_with_name_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.orc");
    let bytes = std::fs::read(orc_files().join("a.orc")).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let of = |scale| failure(&ContainerSource::new(&path, OrcFiles::new(visits(scale)).unwrap()));
    let told = of(3);
    assert!(told.contains("its column `price` is Decimal128(9, 2), and Decimal128(12, 3) is wanted"), "{told}");
    // The end, which says where everything is, is damaged or missing.
    for bad in [&bytes[..bytes.len() - 20], b"no orc at all", b""] {
        std::fs::write(&path, bad).unwrap();
        let told = of(2);
        assert!(told.contains("a.orc` behind record 0") && told.contains("not to be read as ORC"), "{told}");
    }
    let mut damaged = bytes.clone();
    damaged[bytes.len() - 200..bytes.len() - 20].fill(0xff);
    std::fs::write(&path, damaged).unwrap();
    assert!(of(2).contains("not to be read as ORC"));
}

/// ORC has no checksums: what a damaged stripe says may be read as something else, but never ends the program.
#[test]
fn damaged_orc_stripes_are_an_error_or_other_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.orc");
    let bytes = std::fs::read(orc_files().join("b.orc")).unwrap();
    let mut failed = 0;
    for at in 3..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&path, &damaged).unwrap();
        let read = || -> Result<usize> {
            let mut records = OrcFiles::new(visits(2))?.open(&path, 0)?;
            let mut rows = 0;
            while let Some(part) = records.next()? {
                rows += if let Part::Rows(batch) = part { batch.num_rows() } else { 1 };
            }
            Ok(rows)
        };
        match read() {
            Ok(rows) => assert!(rows <= 10, "byte {at}: {rows} rows"),
            Err(error) => {
                failed += 1;
                assert!(
                    error.to_string().contains("ORC") || error.to_string().contains("column"),
                    "byte {at}: {error}"
                );
            }
        }
    }
    assert!(failed > bytes.len() / 2, "{failed} of {} bytes", bytes.len());
}
