//! As much of WASI as a program needs that reads its input and writes its output.

use wasmi::{Caller, Engine, Error, Extern, Linker, Memory, Module, Store};

const MODULE: &str = "wasi_snapshot_preview1";
const STDIN: i32 = 0;
const STDOUT: i32 = 1;

/// Error numbers of WASI.
const SUCCESS: i32 = 0;
const BAD_FILE: i32 = 8;
const FAULT: i32 = 21;

struct Files {
    input: Vec<u8>,
    /// So much of the input was read.
    read: usize,
    output: Vec<u8>,
    complaints: Vec<u8>,
}

/// Runs a program on some input, and returns its output.
pub(crate) fn run(module: &[u8], input: &[u8]) -> Result<String, Error> {
    let engine = Engine::default();
    let module = Module::new(&engine, module)?;
    let files = Files { input: input.to_vec(), read: 0, output: Vec::new(), complaints: Vec::new() };
    let mut store = Store::new(&engine, files);
    let mut linker = Linker::new(&engine);
    linker.func_wrap(MODULE, "fd_read", fd_read)?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap(MODULE, "environ_sizes_get", |caller: Caller<'_, Files>, count: i32, size: i32| {
        empty(caller, [count, size])
    })?;
    linker.func_wrap(MODULE, "environ_get", |_: Caller<'_, Files>, _: i32, _: i32| SUCCESS)?;
    linker.func_wrap(MODULE, "proc_exit", |_: Caller<'_, Files>, code: i32| -> Result<(), Error> {
        Err(Error::i32_exit(code))
    })?;
    let instance = linker.instantiate_and_start(&mut store, &module)?;
    let ended = instance.get_typed_func::<(), ()>(&store, "_start")?.call(&mut store, ());
    let Files { output, complaints, .. } = store.into_data();
    match ended {
        Err(error) if error.i32_exit_status() != Some(0) => {
            Err(Error::new(format!("{error}: {}", String::from_utf8_lossy(&complaints))))
        }
        Ok(()) | Err(_) => String::from_utf8(output).map_err(|error| Error::new(error.to_string())),
    }
}

fn memory(caller: &Caller<'_, Files>) -> Option<Memory> {
    caller.get_export("memory").and_then(Extern::into_memory)
}

/// Reads a list of buffers, each an address and a length.
fn buffers(caller: &Caller<'_, Files>, list: i32, count: i32) -> Option<Vec<(usize, usize)>> {
    let memory = memory(caller)?;
    let number = |at: usize| {
        let mut bytes = [0; 4];
        memory.read(caller, at, &mut bytes).ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let list = usize::try_from(list).ok()?;
    (0..usize::try_from(count).ok()?)
        .map(|place| Some((number(list + 8 * place)?, number(list + 8 * place + 4)?)))
        .collect()
}

fn store_number(caller: &mut Caller<'_, Files>, at: i32, number: usize) -> Option<()> {
    let bytes = u32::try_from(number).ok()?.to_le_bytes();
    memory(caller)?.write(caller, usize::try_from(at).ok()?, &bytes).ok()
}

fn empty(mut caller: Caller<'_, Files>, places: [i32; 2]) -> i32 {
    let stored = places.map(|at| store_number(&mut caller, at, 0));
    if stored.contains(&None) { FAULT } else { SUCCESS }
}

fn fd_read(mut caller: Caller<'_, Files>, fd: i32, list: i32, count: i32, told: i32) -> i32 {
    if fd != STDIN {
        return BAD_FILE;
    }
    let mut fill = || {
        let mut all = 0;
        for (at, length) in buffers(&caller, list, count)? {
            let files = caller.data();
            let rest = files.input.get(files.read..)?;
            let part = rest.get(..length.min(rest.len()))?.to_vec();
            memory(&caller)?.write(&mut caller, at, &part).ok()?;
            caller.data_mut().read += part.len();
            all += part.len();
        }
        store_number(&mut caller, told, all)
    };
    if fill().is_some() { SUCCESS } else { FAULT }
}

fn fd_write(mut caller: Caller<'_, Files>, fd: i32, list: i32, count: i32, told: i32) -> i32 {
    let mut drain = || {
        let mut all = 0;
        for (at, length) in buffers(&caller, list, count)? {
            let mut part = vec![0; length];
            memory(&caller)?.read(&caller, at, &mut part).ok()?;
            let files = caller.data_mut();
            if fd == STDOUT { &mut files.output } else { &mut files.complaints }.extend(&part);
            all += length;
        }
        store_number(&mut caller, told, all)
    };
    if drain().is_some() { SUCCESS } else { FAULT }
}
