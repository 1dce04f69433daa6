#include "instruction_set.hpp"

#include <stdexcept>

#include "memory.hpp"

namespace llamo {
namespace {

struct Known {
  const char* name;
  InstructionSet set;
  bool (*runs_here)();
};

bool always() { return true; }

#if defined(LLAMO_X86)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#endif

const Known kKnown[] = {
#if defined(LLAMO_X86)
    {"avx512_vnni", InstructionSet::kAvx512Vnni, has_avx512_vnni},
    {"avx512", InstructionSet::kAvx512, has_avx512},
    {"avx2", InstructionSet::kAvx2, has_avx2},
#endif
    {"portable", InstructionSet::kPortable, always},
};

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Known& known : kKnown)
    if (known.runs_here()) names.emplace_back(known.name);
  return names;
}

InstructionSet instruction_set_named(const std::string& name) {
  for (const Known& known : kKnown)
    if (known.name == name && known.runs_here()) return known.set;
  throw std::invalid_argument("this machine has no instruction set '" + name + "'");
}

}  // namespace llamo
