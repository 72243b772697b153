/* ProcessUtility_hook has a parameter more since PostgreSQL 14. Behind postgres.h. */
#ifndef HF_GUARD_UTILITY_H
#define HF_GUARD_UTILITY_H

#if PG_VERSION_NUM >= 140000
#define UTILITY_TREE_PARAM bool read_only_tree,
#define UTILITY_TREE       read_only_tree,
#else
#define UTILITY_TREE_PARAM
#define UTILITY_TREE
#endif

#endif
