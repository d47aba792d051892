//! What the processor says of itself, by CPUID: it does not lie to programs, and needs no file of the host. For
//! `/proc/cpuinfo` and `/sys/devices/system/cpu`.
//!
//! The container's processors are told of as cores of one package with one thread each: which of the host's they are changes
//! from moment to moment.

use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
use std::fmt::Write;

use super::sys::processors;

/// Names of a register's bits as `/proc/cpuinfo` has them, `-` for those that it does not show.
type Names = &'static str;

const LEAF_1_EDX: Names = "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx \
                           fxsr sse sse2 ss ht tm ia64 pbe";
const EXTENDED_1_EDX: Names = "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm \
                               3dnowext 3dnow";
const LEAF_1_ECX: Names = "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca \
                           sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave - avx f16c rdrand hypervisor";
const EXTENDED_1_ECX: Names = "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit \
                               wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc \
                               mwaitx";
const LEAF_7_EBX: Names = "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq \
                           rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw \
                           avx512vl";
const LEAF_D_EAX: Names = "xsaveopt xsavec xgetbv1 xsaves";
const LEAF_7_1_EAX: Names = "- - - - avx_vnni avx512_bf16 - - - - - - - - - - - - - - - amx_fp16 - avx_ifma - - lam";
const EXTENDED_8_EBX: Names = "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd";
const LEAF_6_EAX: Names = "dtherm ida arat - pln - pts hwp hwp_notify hwp_act_window hwp_epp hwp_pkg_req";
const EXTENDED_A_EDX: Names = "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter - \
                               pfthreshold avic - v_vmsave_vmload vgif";
const LEAF_7_ECX: Names = "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme \
                           avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd";
const EXTENDED_7_EBX: Names = "overflow_recov succor - smca";
const LEAF_7_EDX: Names = "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk - \
                           pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 - - flush_l1d arch_capabilities";

/// A leaf, or zeros where the processor has none so high.
fn leaf(number: u32, sub: u32) -> CpuidResult {
    let most = __cpuid(number & 0xffff_0000).eax;
    if number <= most { __cpuid_count(number, sub) } else { CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 } }
}

const EXTENDED: u32 = 0x8000_0000;

fn vendor() -> String {
    let v = leaf(0, 0);
    let name: Vec<u8> = [v.ebx, v.edx, v.ecx].iter().flat_map(|r| r.to_le_bytes()).collect();
    String::from_utf8_lossy(&name).into_owned()
}

/// The family that a version says (leaf 1, EAX).
fn family(version: u32) -> u32 {
    let base = version >> 8 & 0xf;
    if base == 0xf { base + (version >> 20 & 0xff) } else { base }
}

fn amd(vendor: &str) -> bool {
    matches!(vendor, "AuthenticAMD" | "HygonGenuine")
}

/// The flags, in Linux's order.
fn flags(vendor: &str) -> String {
    let (one, extended) = (leaf(1, 0), leaf(EXTENDED + 1, 0));
    let (seven, power) = (leaf(7, 0), leaf(EXTENDED + 7, 0));
    let seven_1 = if seven.eax >= 1 { leaf(7, 1).eax } else { 0 };
    let has = |register: u32, bit: u32| register & 1 << bit != 0;
    // What Linux concludes: a steady clock, instructions that all such processors have, how its topology is told.
    let steady = has(power.edx, 8);
    let concluded = [
        (steady, "constant_tsc"),
        (true, "rep_good"),
        (true, "nopl"),
        (leaf(0xb, 0).ebx != 0, "xtopology"),
        (steady, "nonstop_tsc"),
        (true, "cpuid"),
        (amd(vendor), "extd_apicid"),
        (has(one.ecx, 31) && steady, "tsc_known_freq"),
    ];
    let mut out: Vec<&str> = Vec::new();
    let add = |out: &mut Vec<&str>, register: u32, names: Names| {
        out.extend(names.split(' ').enumerate().filter(|(i, n)| *n != "-" && register >> i & 1 != 0).map(|(_, n)| n));
    };
    add(&mut out, one.edx, LEAF_1_EDX);
    add(&mut out, extended.edx, EXTENDED_1_EDX);
    out.extend(concluded.iter().filter(|(on, _)| *on).map(|(_, name)| *name));
    add(&mut out, one.ecx, LEAF_1_ECX);
    add(&mut out, extended.ecx, EXTENDED_1_ECX);
    if amd(vendor) && has(one.ecx, 31) {
        out.push("vmmcall");
    }
    // Linux turns the seeds of a Zen 5 off whose microcode has the fault of 2025; which microcode it is cannot be seen from here.
    const RDSEED: u32 = 1 << 18;
    const ZEN_5: u32 = 0x1a;
    let faulty = if amd(vendor) && family(one.eax) == ZEN_5 { RDSEED } else { 0 };
    add(&mut out, seven.ebx & !faulty, LEAF_7_EBX);
    add(&mut out, leaf(0xd, 1).eax, LEAF_D_EAX);
    add(&mut out, seven_1, LEAF_7_1_EAX);
    add(&mut out, leaf(EXTENDED + 8, 0).ebx, EXTENDED_8_EBX);
    add(&mut out, leaf(6, 0).eax, LEAF_6_EAX);
    if has(extended.ecx, 2) {
        add(&mut out, leaf(EXTENDED + 0xa, 0).edx, EXTENDED_A_EDX);
    }
    add(&mut out, seven.ecx, LEAF_7_ECX);
    add(&mut out, power.ebx, EXTENDED_7_EBX);
    add(&mut out, seven.edx, LEAF_7_EDX);
    out.join(" ")
}

/// A cache of the processor.
#[derive(Clone, Copy, Debug)]
pub struct Cache {
    /// 1 for data, 2 for instructions, 3 for both.
    pub kind: u32,
    /// Level.
    pub level: u32,
    /// Bytes a line.
    pub line: u32,
    /// Lines that are found by one tag.
    pub partitions: u32,
    /// Associativity.
    pub ways: u32,
    /// Sets.
    pub sets: u32,
    /// Processors that share it.
    pub shared: usize,
}

impl Cache {
    /// kB.
    pub fn size(&self) -> u64 {
        [self.line, self.partitions, self.ways, self.sets].iter().map(|n| u64::from(*n)).product::<u64>() / 1024
    }
}

/// The caches, by level.
pub fn caches() -> Vec<Cache> {
    let number = if amd(&vendor()) { EXTENDED + 0x1d } else { 4 };
    // Threads of one core are told of as cores of their own: what only they share is each one's.
    let threads = (leaf(0xb, 0).ebx & 0xffff).max(1) as usize;
    let mut all = Vec::new();
    for sub in 0..16 {
        let l = leaf(number, sub);
        if l.eax & 0x1f == 0 {
            break;
        }
        all.push(Cache {
            kind: l.eax & 0x1f,
            level: l.eax >> 5 & 7,
            line: (l.ebx & 0xfff) + 1,
            partitions: (l.ebx >> 12 & 0x3ff) + 1,
            ways: (l.ebx >> 22) + 1,
            sets: l.ecx.saturating_add(1),
            shared: (((l.eax >> 14 & 0xfff) + 1) as usize / threads).max(1),
        });
    }
    all
}

/// kB of cache as `cpuinfo` tells of one processor.
fn cache_size(vendor: &str) -> u64 {
    if amd(vendor) {
        return u64::from(leaf(EXTENDED + 6, 0).ecx >> 16);
    }
    caches().iter().filter(|c| c.kind != 2).max_by_key(|c| c.level).map_or(0, Cache::size)
}

/// `/proc/cpuinfo`.
pub fn info() -> Vec<u8> {
    let vendor = vendor();
    let flags = flags(&vendor);
    let brand: Vec<u8> = (EXTENDED + 2..=EXTENDED + 4)
        .map(|n| leaf(n, 0))
        .flat_map(|l| [l.eax, l.ebx, l.ecx, l.edx])
        .flat_map(u32::to_le_bytes)
        .take_while(|b| *b != 0)
        .collect();
    let brand = String::from_utf8_lossy(&brand).trim().to_owned();
    let one = leaf(1, 0);
    let (v, line) = (one.eax, (one.ebx >> 8 & 0xff) * 8);
    let (base, family) = (v >> 8 & 0xf, family(v));
    let model = if matches!(base, 6 | 0xf) { v >> 4 & 0xf | v >> 12 & 0xf0 } else { v >> 4 & 0xf };
    let (level, stepping) = (leaf(0, 0).eax, v & 0xf);
    let widths = leaf(EXTENDED + 8, 0).eax;
    let khz = cofferdam_platform::tsc_khz();
    let (mhz, rest) = (khz / 1000, khz % 1000);
    // Two rounds of the delay loop a cycle, as the kernel counts them by the clock.
    let (bogo, part) = (khz * 2 / 1000, khz * 2 % 1000 / 10);
    let cache = cache_size(&vendor);
    let tlb = leaf(EXTENDED + 6, 0).ebx;
    let tlb = match (tlb >> 16 & 0xfff) + (tlb & 0xfff) {
        n if n > 0 && amd(&vendor) => format!("TLB size\t: {n} 4K pages\n"),
        _ => String::new(),
    };
    let c = processors();
    let mut s = String::new();
    for n in 0..c {
        writeln!(
            s,
            "processor\t: {n}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {brand}\n\
             stepping\t: {stepping}\ncpu MHz\t\t: {mhz}.{rest:03}\ncache size\t: {cache} KB\nphysical id\t: 0\nsiblings\t: {c}\n\
             core id\t\t: {n}\ncpu cores\t: {c}\napicid\t\t: {n}\ninitial apicid\t: {n}\nfpu\t\t: yes\nfpu_exception\t: yes\n\
             cpuid level\t: {level}\nwp\t\t: yes\nflags\t\t: {flags}\nbugs\t\t: \nbogomips\t: {bogo}.{part:02}\n{tlb}\
             clflush size\t: {line}\ncache_alignment\t: {line}\n\
             address sizes\t: {} bits physical, {} bits virtual\npower management:\n",
            widths & 0xff,
            widths >> 8 & 0xff,
        )
        .ok();
    }
    s.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_as_many_names_as_bits() {
        for names in [LEAF_1_EDX, LEAF_1_ECX, LEAF_7_EBX, EXTENDED_1_EDX] {
            assert_eq!(names.split(' ').count(), 32, "{names}");
        }
        assert_eq!(LEAF_7_ECX.split(' ').nth(22), Some("rdpid"));
        assert_eq!(LEAF_7_EDX.split(' ').nth(29), Some("arch_capabilities"));
        assert_eq!(EXTENDED_1_ECX.split(' ').nth(22), Some("topoext"));
    }

    #[test]
    fn the_flags_are_those_that_programs_find() {
        let flags = flags(&vendor());
        let has = |name: &str| flags.split(' ').any(|f| f == name);
        assert_eq!(has("avx2"), std::arch::is_x86_feature_detected!("avx2"));
        assert_eq!(has("sha_ni"), std::arch::is_x86_feature_detected!("sha"));
        assert!(has("lm") && has("sse2"));
    }
}
